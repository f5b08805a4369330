"""The slow, obvious beam search: one sentence, no cache; the oracle of the fast one."""

import math
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Hypothesis
from automoe.model.transformer import Transformer

FORBIDDEN = (PAD_ID, BOS_ID)


def random_batch(seed: int, vocabulary_size: int, lengths: list[int]) -> Tensor:
    rng = random.Random(seed)
    rows = [[rng.randrange(3, vocabulary_size) for _ in range(n - 1)] + [EOS_ID] for n in lengths]
    return torch.tensor([row + [PAD_ID] * (max(lengths) - len(row)) for row in rows])


def log_probabilities(model: Transformer, source: list[int], prefix: tuple[int, ...]) -> list[float]:
    output = model(torch.tensor([source]), torch.tensor([[BOS_ID, *prefix]]))
    return model.logits(output.hidden_BTD[0, -1]).log_softmax(dim=-1).tolist()


def mean_log_probabilities(
    models: Sequence[Transformer], source: list[int], prefix: tuple[int, ...]
) -> list[float]:
    """Of each next token, the logarithm of the mean of the models' probabilities."""
    each = [log_probabilities(model, source, prefix) for model in models]
    return [math.log(sum(map(math.exp, token)) / len(models)) for token in zip(*each, strict=True)]


@torch.no_grad()
def slow_beam_search(
    model: Transformer, source: list[int], settings: BeamSettings, *others: Transformer
) -> list[Hypothesis]:
    """One sentence, no cache: the whole prefix again for each hypothesis at each step.

    With other models, it is an ensemble's.
    """
    models = [model.eval(), *(other.eval() for other in others)]
    limit = max(settings.min_length, int(settings.max_length_ratio * len(source) + settings.max_length_extra))
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[Hypothesis] = []
    for length in range(1, limit + 1):
        extensions = []
        for log_probability, prefix in live:
            for token, value in enumerate(mean_log_probabilities(models, source, prefix)):
                if (
                    token in FORBIDDEN
                    or (token == EOS_ID and length < settings.min_length)
                    or (token != EOS_ID and length == limit)
                ):
                    continue
                extensions.append((log_probability + value, prefix, token))
        extensions.sort(key=lambda x: -x[0])
        for log_probability, prefix, token in extensions[: settings.beam_size]:
            if token == EOS_ID and len(finished) < settings.beam_size:
                score = log_probability / length**settings.length_penalty
                finished.append(Hypothesis(prefix, score, log_probability))
        if len(finished) == settings.beam_size:
            break
        live = [(p, (*prefix, token)) for p, prefix, token in extensions if token != EOS_ID]
        live = live[: settings.beam_size]
    return sorted(finished, key=lambda h: -h.score)[: settings.n_best]


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
