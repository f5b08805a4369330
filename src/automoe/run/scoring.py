"""How good a candidate is: with the supernet's weights, and after some steps of its own from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automoe.data.batching import BatchStream, fixed_batches
from automoe.data.corpus import load_pairs
from automoe.design.architecture import Architecture
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
    batches = fixed_batches(prepared.valid, 4 * run.recipe.supernet.batch_tokens, indices)
    return lambda architecture: validation_loss(supernet.subnetwork(architecture), batches)


def own_score(
    run: Run, supernet: Supernet, prepared: Prepared, own: OwnSteps, journal: Path, *, inherited: bool = False
) -> Score:
    """Validation loss of a copy after some steps of its own; each is remembered in `journal`.

    Args:
        inherited: make no steps; for comparing.
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
                steps=0 if inherited else own.steps,
                peak_rate=own.peak_rate,
            )
            record = {"architecture": architecture.to_dict(), "loss": known[architecture]}
            append_to_journal(journal, [record], durable=True)
        return known[architecture]

    return score


def scored_again(run: Run, candidates: Sequence[Candidate], score: Score, title: str) -> list[Candidate]:
    """The candidates with another score."""
    bar = run.reporter.bar(title)
    again: list[Candidate] = []
    for candidate in candidates:
        loss = score(candidate.architecture)
        again.append(dataclasses.replace(candidate, score=loss))
        bar(len(again), len(candidates), f"{loss:.3f}")
    return again


def _parse(plain: Any) -> tuple[Architecture, float]:
    return Architecture.from_dict(plain["architecture"]), float(plain["loss"])
