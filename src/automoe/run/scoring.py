"""How good a candidate is: with the supernet's weights, and after some steps of its own from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automoe.data.batching import BatchStream, fixed_batches
from automoe.data.corpus import load_pairs
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.evaluation.scores import evaluate_model
from automoe.model.sharing import Supernet
from automoe.run.context import Run
from automoe.run.prepare import Prepared
from automoe.run.recipe import OwnSteps
from automoe.search.candidate import Candidate
from automoe.search.evaluator import Score
from automoe.storage import append_to_journal, read_journal
from automoe.training.objective import validation_loss
from automoe.training.own_steps import loss_after_own_steps

_MEND = "delete these lines; what they held is computed again"


def inherited_score(run: Run, supernet: Supernet, prepared: Prepared) -> Score:
    """Validation loss, or minus the greedy BLEU, on the same sentences for every candidate."""
    search, data = run.recipe.search, run.recipe.data
    if search.rank_by == "bleu":
        pairs = load_pairs(data.valid, data.limits)[0][: search.sentences]
        greedy = dataclasses.replace(run.recipe.translation, beam_size=1, n_best=1)

        def minus_bleu(architecture: Architecture) -> float:
            model = supernet.subnetwork(architecture)
            translated = evaluate_model(model, prepared.tokenizer, pairs, data.target_language, greedy)
            return -translated.scores.bleu

        return minus_bleu
    indices = range(min(search.sentences, len(prepared.valid)))
    # Not larger: more would be padding, and on a CPU nothing is gained by it.
    batches = fixed_batches(prepared.valid, run.recipe.supernet.batch_tokens, indices)
    return lambda architecture: validation_loss(supernet.subnetwork(architecture), batches)


def own_score(run: Run, supernet: Supernet, prepared: Prepared, own: OwnSteps, journal: Path) -> Score:
    """Validation loss of a copy after some steps of its own, infinity when they diverge.

    Each is remembered in `journal`.
    """
    settings = run.recipe.training
    batches = fixed_batches(prepared.valid, 4 * settings.batch_tokens)
    known = dict(read_journal(journal, _parse, _MEND))

    def score(architecture: Architecture) -> float:
        if architecture not in known:
            known[architecture] = loss_after_own_steps(
                supernet.extract(architecture),
                BatchStream(prepared.train, settings.batch_tokens, settings.seed),
                settings,
                batches,
                steps=own.steps,
                peak_rate=own.peak_rate,
            )
            loss = known[architecture]
            record = {
                "architecture": architecture.to_dict(),
                "loss": loss if math.isfinite(loss) else None,
            }
            append_to_journal(journal, [record], durable=True)
        return known[architecture]

    return score


def scored_again(run: Run, candidates: Sequence[Candidate], score: Score, title: str) -> list[Candidate]:
    """The candidates with another score; those for which it is infinite leave.

    Raises:
        InputError: it is infinite for all.
    """
    bar = run.reporter.bar(title)
    again: list[Candidate] = []
    for done, candidate in enumerate(candidates, start=1):
        loss = score(candidate.architecture)
        if math.isfinite(loss):
            again.append(dataclasses.replace(candidate, score=loss))
        else:
            run.reporter.say(f"{title}: diverged, and leaves: {candidate.architecture}")
        bar(done, len(candidates), f"{loss:.3f}")
    if not again:
        raise InputError(f"{title}: all candidates diverged", ["lower search.own_steps.peak_rate"])
    return again


def _parse(plain: Any) -> tuple[Architecture, float]:
    loss = plain["loss"]
    return Architecture.from_dict(plain["architecture"]), math.inf if loss is None else float(loss)
