"""The stages that say what trained systems are worth: scores on the test set, and latencies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from automoe.cost.counting import count
from automoe.cost.measure import Latency, measure_together, why_noisy
from automoe.cost.peak_memory import measure_peak_memory
from automoe.cost.sources import measure_batches
from automoe.data.corpus import load_whole
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.evaluation.scores import evaluate_model
from automoe.inference.backends import BARE_ENGINES
from automoe.inference.model_folder import UNUSED_EXPERTS, add_to_card, load_model, model_of, read_model
from automoe.report.notes import names_of_unused
from automoe.run.context import Run
from automoe.run.corpora import corpus_values
from automoe.run.folder import Stage, read_stage_json
from automoe.run.inputs import COUNTED, MEASURED, TOGETHER
from automoe.storage import write_json, write_text


def evaluate(run: Run, system: str, trained: Stage) -> Stage:
    """Translate the test set, score it, count costs; `result.json` and `translations.txt`.

    Where the recipe's latencies are of a shortlist, so are the translations. The model's card gets the
    names of the experts that no token of the test set went to.

    Line k of `translations.txt` is the translation of the test set's line k, even where the pair is dropped
    and not scored; that of an empty source is empty.
    """
    recipe = run.recipe
    inputs = corpus_values(run, "test") | run.chosen("data.target_language", "translation", *COUNTED)

    def work(folder: Path) -> None:
        stored = read_model(trained.folder / "model")
        model = model_of(stored)
        if recipe.training.device != "cpu" and torch.cuda.is_available():
            model = model.to("cuda")
        test = load_whole(recipe.data.test, recipe.data.limits)
        run.reporter.say(f"evaluate {system}: translating {len(test.pairs):,} lines, scoring {test.report}")
        evaluation = evaluate_model(
            model,
            stored.tokenizer,
            test.pairs,
            recipe.data.target_language,
            recipe.translation,
            references=test.references,
            scored=test.kept,
            shortlister=stored.shortlister(recipe.latency.shortlist),
        )
        shares = {use.layer: use.shares for use in evaluation.expert_use}
        counts = count(model.architecture, run.protocol)  # every expert equally likely
        counts_as_routed = count(model.architecture, run.protocol, shares)
        # Also the report does, for systems that an earlier version evaluated; but a pick has no report.
        add_to_card(trained.folder / "model", unused_fact(model.architecture, shares))
        write_text(folder / "translations.txt", "\n".join([*evaluation.translations, ""]))
        write_json(
            folder / "result.json",
            {
                "system": system,
                "architecture": model.architecture.to_dict(),
                "scores": dataclasses.asdict(evaluation.scores),
                "test_pairs": dataclasses.asdict(test.report),
                "counts": dataclasses.asdict(counts),
                "counts_as_routed": dataclasses.asdict(counts_as_routed),
                "translation_seconds": evaluation.translation_seconds,
                "routing_shares": shares,
                "training": read_stage_json(trained.folder / "training.json"),
            },
        )
        run.reporter.say(f"evaluate {system}: BLEU {evaluation.scores.bleu:.2f}")

    return run.folder.stage(f"evaluate-{system}", inputs, work, after=[trained])


def unused_fact(architecture: Architecture, shares: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """What a model's card says of experts that got no token; nothing of a model without mixtures.

    Args:
        shares: by name of a mixture layer, those of its tokens that each expert got.
    """
    return {UNUSED_EXPERTS: ", ".join(names_of_unused(architecture, shares)) or "none"} if shares else {}


def measure_systems(run: Run, trained: Mapping[str, Stage]) -> Stage:
    """Measure every trained system side by side, so that the ratios can be believed; `latency.json`.

    Of an engine that serves without torch the peak memory is measured, too.
    """
    runs = run.recipe.latency.runs
    inputs = run.chosen("latency.runs", *MEASURED)

    def work(folder: Path) -> None:
        models = {name: load_model(stage.folder / "model")[0] for name, stage in trained.items()}
        run.reporter.say(f"latency: {len(models)} systems, {runs} runs each")
        measured = measure_together(run.protocol, models, runs)
        records = {name: _record(latency) for name, latency in measured.items()}
        if run.protocol.backend in BARE_ENGINES:
            for name, stage in trained.items():
                try:
                    memory = measure_peak_memory(stage.folder / "model", run.protocol)
                    records[name] |= dataclasses.asdict(memory)
                except InputError as error:  # of a table without it
                    run.reporter.say(f"  {error}")
        write_json(folder / "latency.json", records)

    return run.folder.stage("latency", inputs, work, after=trained.values())


def measure_throughput(run: Run, trained: Mapping[str, Stage]) -> Stage | None:
    """Measure a server's batches of every trained system side by side; `throughput.json`.

    None where the recipe has no settings for them: throughput then goes by the latency.
    """
    settings = run.recipe.latency.throughput
    if settings is None:
        return None
    inputs = run.chosen("latency.throughput.runs", *TOGETHER)

    def work(folder: Path) -> None:
        models = {name: load_model(stage.folder / "model")[0] for name, stage in trained.items()}
        run.reporter.say(
            f"throughput: {len(models)} systems, {settings.runs} batches of {settings.batch} each"
        )
        measured = measure_batches(run.protocol, settings, models)
        records = {
            name: {
                **_record(latency),
                "batch": settings.batch,
                "sentences_s": 1000 * settings.batch / latency.latency_ms,
            }
            for name, latency in measured.items()
        }
        write_json(folder / "throughput.json", records)

    return run.folder.stage("throughput", inputs, work, after=trained.values())


def _record(latency: Latency) -> dict[str, Any]:
    return {**dataclasses.asdict(latency), "noise": why_noisy(latency)}
