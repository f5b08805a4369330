"""The stage that makes the report, and tells each model's card what was measured of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automoe.data.corpus import LoadReport, load_whole
from automoe.design.architecture import Architecture
from automoe.evaluation.significance import paired_bootstrap
from automoe.inference.model_folder import add_to_card
from automoe.report.run_report import write_report
from automoe.report.seed_report import SeedReport
from automoe.run.budget import Budget
from automoe.run.context import Run
from automoe.run.corpora import load_reports
from automoe.run.device_profile import priced_costs
from automoe.run.evaluate import unused_fact
from automoe.run.folder import Stage, read_stage_json
from automoe.run.prepare import Prepared
from automoe.run.question import what_was_asked
from automoe.run.recipe import Recipe
from automoe.run.sentences import sentences_of


@dataclass(frozen=True)
class SeedStages:
    """The stages of one seed: by system, where there are several; `distilled` is the teacher's, if any."""

    supernet: Stage | None
    searches: Mapping[str, Stage]
    finals: Mapping[str, Stage]
    trained: Mapping[str, Stage]
    evaluated: Mapping[str, Stage]
    latency: Stage
    distilled: Stage | None = None
    throughput: Stage | None = None

    def reported(self) -> list[Stage]:
        """What the report is made from."""
        several = (self.searches, self.finals, self.evaluated)
        timed = [self.latency, *([self.throughput] if self.throughput else [])]
        return [*(stage for stages in several for stage in stages.values()), *timed]


def report_run(run: Run, prepared: Prepared, seeds: Mapping[int, SeedStages], budget: Budget) -> Stage:
    """The table, the pictures and the page, of every system and seed."""
    recipe = run.recipe
    reference = run.values["baseline.name"]
    asked = what_was_asked(run, budget, load_reports(run, prepared.stage.folder))

    def work(folder: Path) -> None:
        test = load_whole(recipe.data.test, recipe.data.limits)
        pairs = [test.pairs[k] for k in test.kept]
        references = [test.references[k] for k in test.kept]
        reports: dict[int, SeedReport] = {}
        for seed, stages in seeds.items():
            results = {
                name: read_stage_json(s.folder / "result.json") for name, s in stages.evaluated.items()
            }
            measured = read_stage_json(stages.latency.folder / "latency.json")
            latencies = {name: measured[name] for name in stages.trained}
            throughputs = {}
            if stages.throughput:
                measured = read_stage_json(stages.throughput.folder / "throughput.json")
                throughputs = {name: measured[name] for name in stages.trained}
            for name, stage in stages.trained.items():
                facts = measured_facts(run, results[name], latencies[name], throughputs.get(name))
                add_to_card(stage.folder / "model", facts)
            translations = {}
            for name, stage in stages.evaluated.items():
                lines = _lines(stage.folder / "translations.txt")
                translations[name] = [lines[k] for k in test.kept]
            run.reporter.say(f"report: significance of {len(translations)} systems, seed {seed}")
            compared = {
                (other, name): paired_bootstrap(
                    translations[other], translations[name], references, recipe.data.target_language
                )
                for other, name in _pairs(recipe, reference, translations)
            }
            models = {name: s.folder / "model" for name, s in stages.trained.items()}
            # One seed's are enough to read.
            sentences = [] if reports else sentences_of(pairs, references, models, translations)
            histories: dict[str, Path] = {}
            supernet_seconds = None
            if stages.supernet:
                histories["supernet"] = stages.supernet.folder
                supernet_seconds = read_stage_json(stages.supernet.folder / "training.json")["seconds"]
            distilling_seconds = None
            if stages.distilled:
                distilling_seconds = read_stage_json(stages.distilled.folder / "report.json")["seconds"]
            for name, stage in stages.trained.items():
                if history := _history(stage.folder):
                    histories[name] = history
            reports[seed] = SeedReport(
                results=results,
                latencies=latencies,
                throughputs=throughputs,
                searches={n: read_stage_json(s.folder / "chosen.json") for n, s in stages.searches.items()},
                logs={n: s.folder / "candidates.jsonl" for n, s in stages.searches.items()},
                races={n: read_stage_json(s.folder / "race.json") for n, s in stages.finals.items()},
                histories=histories,
                compared=compared,
                supernet_seconds=supernet_seconds,
                sentences=sentences,
                twins=recipe.twins,
                distilling_seconds=distilling_seconds,
            )
        write_report(
            folder,
            reports,
            asked=asked,
            reference=reference,
            main=run.values["main system"],
            score_label="validation loss" if recipe.search.rank_by == "loss" else "minus BLEU",
            protocol=run.protocol,
            sought=priced_costs(recipe),
            profile=budget.latency_file if recipe.latency.source == "profile" else None,
        )

    inputs = run.chosen("baseline.name", "main system", "data.source_language", "data.target_language")
    inputs |= {"what was asked": dict(asked.facts), "dropped pairs": list(asked.dropped)}
    reported = [stage for stages in seeds.values() for stage in stages.reported()]
    return run.folder.stage("report", inputs, work, after=reported)


def _pairs(recipe: Recipe, reference: str, translations: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which systems are compared: each with the reference, and searches under the same constraints.

    Of those the first is compared with each of the others. A student is compared with its twin, too.
    """
    pairs = [(reference, name) for name in translations if name != reference]
    for index, system in enumerate(recipe.searched):
        bounds = recipe.constraints_of(system)
        if all(recipe.constraints_of(earlier) != bounds for earlier in recipe.searched[:index]):
            later = recipe.searched[index + 1 :]
            pairs += [(other.name, system.name) for other in later if recipe.constraints_of(other) == bounds]
    pairs += [(twin, student) for student, twin in recipe.twins.items() if (twin, student) not in pairs]
    return pairs


def _history(folder: Path) -> Path | None:
    """Where the history of a trained system is; None where nothing was trained."""
    history = read_stage_json(folder / "training.json").get("history")
    return None if history is None else Path(os.path.normpath(folder / history))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def measured_facts(
    run: Run,
    result: Mapping[str, Any],
    latency: Mapping[str, Any],
    throughput: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a model's card says of it."""
    train, test = run.recipe.data.train, LoadReport.from_plain(result["test_pairs"])
    subset = {} if test.kept == test.read else {"test pairs scored": f"{test.kept:,} of {test.read:,}"}
    return {
        "source_language": run.recipe.data.source_language,
        "target_language": run.recipe.data.target_language,
        "corpus": train.dataset or Path(train.path or train.source_path or "").name,
        "BLEU": result["scores"]["bleu"],
        "BLEU signature": result["scores"]["bleu_signature"],
        "chrF": result["scores"]["chrf"],
        **subset,
        "sparsity": result["counts"]["sparsity"],
        "FLOPs as routed on the test set": result["counts_as_routed"]["flops"],
        **unused_fact(Architecture.from_dict(result["architecture"]), result["routing_shares"]),
        f"latency, ms a {'sentence' if run.protocol.batch == 1 else 'batch'}": latency["latency_ms"],
        "latency protocol": ", ".join(f"{k} {v}" for k, v in run.protocol.plain().items()),
        **(
            {f"sentences a second, batches of {throughput['batch']}": throughput["sentences_s"]}
            if throughput
            else {}
        ),
    }
