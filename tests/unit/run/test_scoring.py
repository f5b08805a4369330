"""Scores of candidates: steps of their own against a plain loop of torch's, and their journal.

Shapes: as in `automoe.data.batching.Batch`; N target tokens without padding, D width, V vocabulary.
"""

import copy
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from automoe.data.batching import TokenisedCorpus
from automoe.data.vocabulary import PAD_ID
from automoe.errors import InputError
from automoe.model.sharing import Supernet
from automoe.run import scoring
from automoe.run.recipe import OwnSteps
from automoe.run.scoring import own_score
from automoe.training.muon import hidden_matrices
from automoe.training.objective import objective
from automoe.training.own_steps import loss_after_own_steps
from automoe.training.settings import TrainingSettings
from helpers.reversal import LARGE, SMALL, VOCABULARY, ReversalStream, digits

SETTINGS = TrainingSettings(
    steps=100, peak_rate=1.0, warmup_steps=50, final_rate_ratio=0.1, label_smoothing=0.2, clip_norm=0.5,
    balance_coefficient=0.05, device="cpu", seed=4,
)  # fmt: skip
STEPS, PEAK_RATE = 20, 5e-3


def supernet(dropout: float = 0.0) -> Supernet:
    return Supernet(LARGE, VOCABULARY, norm="pre", dropout=dropout, seed=3)


def validation():
    stream = ReversalStream(99)
    return [next(stream) for _ in range(3)]


def logits_and_targets(network, batch):
    output = network(batch.source_BS, batch.target_in_BT)
    target_N = batch.target_out_BT[batch.target_out_BT != PAD_ID]
    hidden_ND = output.hidden_BTD[batch.target_out_BT != PAD_ID]
    logits_NV = hidden_ND @ network.embedding[:, : hidden_ND.shape[1]].T
    return logits_NV, target_N, output.routing


def plain_loss(network) -> float:
    """Mean negative log-likelihood a token, after all of the loop's batches."""
    network.eval()
    nll, tokens = 0.0, 0
    with torch.no_grad():
        for batch in validation():
            logits_NV, target_N, _ = logits_and_targets(network, batch)
            nll += float(F.cross_entropy(logits_NV, target_N, reduction="sum"))
            tokens += len(target_N)
    return nll / tokens


def plain_rate(step: int) -> float:
    """Up over the first tenth, then half a cosine down to a tenth of the peak."""
    warmup = STEPS // 10
    if step <= warmup:
        return PEAK_RATE * step / warmup
    angle = math.pi * (step - warmup) / (STEPS - warmup)
    return PEAK_RATE * (0.1 + 0.9 * (1 + math.cos(angle)) / 2)


@pytest.mark.parametrize("architecture", [LARGE, SMALL], ids=["all", "part"])
def test_steps_of_its_own_are_those_of_a_plain_loop(architecture):
    network = supernet().extract(architecture)
    reference = copy.deepcopy(network).train().requires_grad_(True)
    optimizer = torch.optim.Adam(reference.parameters(), betas=(0.9, 0.98), eps=1e-9)
    stream = ReversalStream(1)
    for step in range(1, STEPS + 1):
        logits_NV, target_N, routing = logits_and_targets(reference, next(stream))
        loss = F.cross_entropy(logits_NV, target_N, label_smoothing=0.2)
        loss = loss + 0.05 * torch.stack([layer.load_balance_loss for layer in routing]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        optimizer.param_groups[0]["lr"] = plain_rate(step)
        optimizer.step()
    before = plain_loss(supernet().extract(architecture))
    found = loss_after_own_steps(
        network, ReversalStream(1), SETTINGS, validation(), steps=STEPS, peak_rate=PEAK_RATE
    )
    assert found == pytest.approx(plain_loss(reference), rel=1e-3)
    assert found < before - 0.1


def test_the_step_is_that_of_the_trainings_optimizer():
    losses = {
        kind: loss_after_own_steps(
            supernet().extract(SMALL), ReversalStream(1), replace(SETTINGS, optimizer=kind), validation(),
            steps=1, peak_rate=PEAK_RATE,
        )
        for kind in ("adam", "muon")
    }  # fmt: skip
    network, batch = supernet().extract(SMALL).train().requires_grad_(True), next(ReversalStream(1))
    part = objective(network, batch, label_smoothing=0.2, balance_coefficient=0.05)
    (part.loss / batch.target_tokens).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
    matrices = [parameter for _, parameter in hidden_matrices(network)]
    torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
    others = [p for p in network.parameters() if all(p is not matrix for matrix in matrices)]
    torch.optim.Adam(others, lr=PEAK_RATE, betas=(0.9, 0.98), eps=1e-9).step()
    by_torch = plain_loss(network)
    assert abs(losses["muon"] - by_torch) < 0.1 * abs(losses["adam"] - by_torch)


def test_no_steps_tell_the_loss_as_it_is():
    network = supernet().extract(SMALL)
    expected = plain_loss(copy.deepcopy(network))
    found = loss_after_own_steps(
        network, ReversalStream(1), SETTINGS, validation(), steps=0, peak_rate=PEAK_RATE
    )
    assert found == pytest.approx(expected, rel=1e-5)


def test_dropout_is_drawn_alike_in_equal_calls_and_leaves_the_callers_chance_alone():
    large = supernet(dropout=0.3)

    def loss(seed: int) -> float:
        settings = TrainingSettings(steps=1, peak_rate=1.0, warmup_steps=0, device="cpu", seed=seed)
        network = large.extract(SMALL)
        torch.manual_seed(7)
        found = loss_after_own_steps(
            network, ReversalStream(1), settings, validation(), steps=5, peak_rate=PEAK_RATE
        )
        drawn.append(torch.rand(3))
        return found

    torch.manual_seed(7)
    drawn = [torch.rand(3)]
    first = loss(1)
    assert loss(1) == first
    assert loss(2) != first
    assert all(torch.equal(numbers, drawn[0]) for numbers in drawn)


def corpus(rng: random.Random) -> TokenisedCorpus:
    """Digits and their reversals."""
    rows = [digits(rng, 6) for _ in range(60)]
    sides = {"source": rows, "target": [row[::-1] for row in rows]}
    return TokenisedCorpus(
        {
            side: np.array([token for row in several for token in row], dtype=np.int32)
            for side, several in sides.items()
        },
        {side: np.cumsum([0, *map(len, several)], dtype=np.int64) for side, several in sides.items()},
    )


@pytest.fixture
def scorer(rng, tmp_path):
    """Makes the score of a search's candidates, as a search does that starts, or starts again."""
    run = SimpleNamespace(recipe=SimpleNamespace(training=replace(SETTINGS, batch_tokens=100)))
    both = corpus(rng)
    prepared, large = SimpleNamespace(train=both, valid=both), supernet()
    own = OwnSteps(steps=3, candidates=2, peak_rate=PEAK_RATE)
    return lambda: own_score(run, large, prepared, own, tmp_path / "own_steps.jsonl")


def test_a_search_that_is_killed_asks_for_each_architecture_once(scorer, tmp_path, monkeypatch):
    """Its supernet is as before: candidates are copies of its weights."""
    members = [SMALL, LARGE, replace(SMALL, encoder_width=16)]
    never_killed = [scorer()(member) for member in members]
    (tmp_path / "own_steps.jsonl").unlink()
    asked = []

    def counted(network, *args, **settings) -> float:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(network.architecture)
        return loss_after_own_steps(network, *args, **settings)

    monkeypatch.setattr(scoring, "loss_after_own_steps", counted)
    score = scorer()
    found = [score(SMALL), score(LARGE), score(SMALL)]
    with pytest.raises(KeyboardInterrupt):
        score(members[2])
    assert asked == [SMALL, LARGE]
    with (tmp_path / "own_steps.jsonl").open("a") as journal:
        journal.write('{"architecture": {"encoder_wi')  # what a kill cut short
    asked.clear()
    again = scorer()
    assert [again(member) for member in members] == never_killed
    assert asked == [members[2]]
    assert found == [never_killed[0], never_killed[1], never_killed[0]]
    assert len(set(never_killed)) == 3


def test_a_line_of_the_journal_that_says_nothing_is_named(scorer, tmp_path):
    (tmp_path / "own_steps.jsonl").write_text('{"architecture": {}, "loss": 1.0}\n{"loss": 2.0}\n')
    with pytest.raises(InputError, match=r"own_steps\.jsonl") as caught:
        scorer()
    first, second, mend = caught.value.problems
    assert (first[:7], second[:7]) == ("line 1:", "line 2:")
    assert mend == "delete these lines; what they held is computed again"
