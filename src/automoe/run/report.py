"""The stage that makes the report, and tells each model's card what was measured of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automoe.data.corpus import load_pairs
from automoe.evaluation.significance import paired_bootstrap
from automoe.inference.model_folder import add_to_card
from automoe.report.run_report import write_report
from automoe.report.seed_report import SeedReport
from automoe.run.budget import Budget
from automoe.run.context import Run
from automoe.run.folder import Stage, read_stage_json
from automoe.run.prepare import Prepared
from automoe.run.question import what_was_asked
from automoe.run.recipe import Recipe
from automoe.run.sentences import sentences_of

_FORMAT = 2
"""Of what the stage writes: raised when a finished run's report should be made again."""


@dataclass(frozen=True)
class SeedStages:
    """The stages of one seed: by system, where there are several."""

    supernet: Stage | None
    searches: Mapping[str, Stage]
    finals: Mapping[str, Stage]
    trained: Mapping[str, Stage]
    evaluated: Mapping[str, Stage]
    latency: Stage

    def fingerprints(self) -> list[str]:
        """What the report is made from."""
        several = (self.searches, self.finals, self.evaluated)
        return [stage.fingerprint for stages in several for stage in stages.values()] + [
            self.latency.fingerprint
        ]


def report_run(run: Run, prepared: Prepared, seeds: Mapping[int, SeedStages], budget: Budget) -> Stage:
    """The table, the pictures and the page, of every system and seed."""
    recipe = run.recipe
    baseline = recipe.baseline_system or recipe.systems[0]
    reference = baseline.name
    asked = what_was_asked(run, budget, read_stage_json(prepared.stage.folder / "report.json"))

    def work(folder: Path) -> None:
        pairs = load_pairs(recipe.data.test, recipe.data.limits)[0]
        references = [pair.target for pair in pairs]
        reports: dict[int, SeedReport] = {}
        for seed, stages in seeds.items():
            results = {
                name: read_stage_json(s.folder / "result.json") for name, s in stages.evaluated.items()
            }
            latencies = read_stage_json(stages.latency.folder / "latency.json")
            for name, stage in stages.trained.items():
                add_to_card(stage.folder / "model", measured_facts(run, results[name], latencies[name]))
            translations = {
                name: _lines(s.folder / "translations.txt") for name, s in stages.evaluated.items()
            }
            run.reporter.say(f"report: significance of {len(translations)} systems, seed {seed}")
            compared = {
                (other, name): paired_bootstrap(translations[other], translations[name], references)
                for other, name in _pairs(recipe, reference, translations)
            }
            models = {name: s.folder / "model" for name, s in stages.trained.items()}
            # One seed's are enough to read.
            sentences = [] if reports else sentences_of(pairs, models, translations)
            histories: dict[str, Path] = {}
            supernet_seconds = None
            if stages.supernet:
                histories["supernet"] = stages.supernet.folder
                supernet_seconds = read_stage_json(stages.supernet.folder / "training.json")["seconds"]
            for name, stage in stages.trained.items():
                if history := _history(stage.folder):
                    histories[name] = history
            reports[seed] = SeedReport(
                results=results,
                latencies=latencies,
                searches={n: read_stage_json(s.folder / "chosen.json") for n, s in stages.searches.items()},
                logs={n: s.folder / "candidates.jsonl" for n, s in stages.searches.items()},
                races={n: read_stage_json(s.folder / "race.json") for n, s in stages.finals.items()},
                histories=histories,
                compared=compared,
                supernet_seconds=supernet_seconds,
                sentences=sentences,
            )
        write_report(
            folder,
            reports,
            asked=asked,
            reference=reference,
            main=(recipe.searched or recipe.systems)[0].name,
            score_label="validation loss" if recipe.search.rank_by == "loss" else "minus BLEU",
            protocol=run.protocol,
            bounded=tuple({name for system in recipe.searched for name in recipe.constraints_of(system)}),
            profile=budget.latency_file if recipe.latency.source == "profile" else None,
        )

    fingerprints = {str(seed): stages.fingerprints() for seed, stages in seeds.items()}
    inputs = [fingerprints, reference, _FORMAT, dict(asked.facts)]
    return run.folder.stage("report", inputs, work)


def _pairs(recipe: Recipe, reference: str, translations: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which systems are compared: each with the reference, and searches under the same constraints.

    Of those the first is compared with each of the others.
    """
    pairs = [(reference, name) for name in translations if name != reference]
    for index, system in enumerate(recipe.searched):
        bounds = recipe.constraints_of(system)
        if all(recipe.constraints_of(earlier) != bounds for earlier in recipe.searched[:index]):
            later = recipe.searched[index + 1 :]
            pairs += [(other.name, system.name) for other in later if recipe.constraints_of(other) == bounds]
    return pairs


def _history(folder: Path) -> Path | None:
    """Where the history of a trained system is; None where nothing was trained."""
    history = read_stage_json(folder / "training.json").get("history")
    return None if history is None else Path(os.path.normpath(folder / history))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def measured_facts(run: Run, result: Mapping[str, Any], latency: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's card says of it."""
    train = run.recipe.data.train
    return {
        "source_language": run.recipe.data.source_language,
        "target_language": run.recipe.data.target_language,
        "corpus": train.dataset or Path(train.path or train.source_path or "").name,
        "BLEU": result["scores"]["bleu"],
        "BLEU signature": result["scores"]["bleu_signature"],
        "chrF": result["scores"]["chrf"],
        "sparsity": result["counts"]["sparsity"],
        "FLOPs as routed on the test set": result["counts_as_routed"]["flops"],
        f"latency, ms a {'sentence' if run.protocol.batch == 1 else 'batch'}": latency["latency_ms"],
        "latency protocol": ", ".join(f"{k} {v}" for k, v in run.protocol.plain().items()),
    }
