"""A run, from corpus to table; each stage is skipped when done and continues when interrupted.

prepare      vocabulary and token ids of the corpora
profile      where the time of this machine goes, for a search with a bound on the latency
budget       the constraints as numbers, and whether the space can keep them
supernet     the largest network, trained by a random sub-network each step
search       every candidate evaluated by evolution, dense evolution (HAT) and random search
train-*      each system from scratch; the winner also from the supernet's weights
evaluate-*   BLEU, chrF, costs, routing
latency      all systems measured side by side, by the papers' protocol
report       table and pictures
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from automoe.cost.noise import why_noisy
from automoe.cost.sources import count_costs, measure_together
from automoe.data.corpus import load_pairs
from automoe.evaluation.scores import evaluate_model
from automoe.inference.model_folder import add_to_card, load_model
from automoe.progress import Reporter
from automoe.report.run_report import write_report
from automoe.run.budget import find_budget
from automoe.run.device_profile import latency_file
from automoe.run.folder import RunFolder, Stage
from automoe.run.prepare import corpus_digest, prepare
from automoe.run.recipe import LoadedRecipe, Recipe
from automoe.run.search import BEAM_TOKENS, search_architectures
from automoe.run.train import TrainingStages
from automoe.storage import read_json, write_json

StageName = Literal["prepare", "supernet", "search", "train", "evaluate", "report"]


@dataclass(frozen=True)
class Outcome:
    """What a run made: `model`, the winner's folder, and `report`, the folder with table and pictures."""

    model: Path
    report: Path


class Pipeline:
    """One recipe in one run folder.

    Args:
        loaded: the recipe. `runs_folder`: where `NAME/` is made. `reporter`: tells the user.

    Raises:
        InputError: the run folder belongs to another recipe.
    """

    def __init__(self, loaded: LoadedRecipe, runs_folder: Path, reporter: Reporter) -> None:
        self._loaded, self._recipe, self._space = loaded, loaded.recipe, loaded.space
        self._reporter = reporter
        self._run = RunFolder(runs_folder / self._recipe.name, self._recipe.name, reporter.say)

    def execute(self, until: StageName = "report") -> Outcome | None:
        """Run all stages up to `until`; the outcome once there is a report.

        Raises:
            InputError: bad data, an impossible budget, a full disk, a training that diverged.
        """
        recipe = self._recipe
        prepared = prepare(recipe, self._run)
        if until == "prepare":
            return None
        training = TrainingStages(self._loaded, self._run, self._reporter, prepared)
        priced_by = latency_file(self._loaded, self._run, self._reporter)
        budget = find_budget(self._loaded, self._run, self._reporter, priced_by)
        supernet_stage, supernet = training.supernet()
        if until == "supernet":
            return None
        search, designs = search_architectures(
            self._loaded, self._run, self._reporter, prepared, supernet_stage, supernet, budget
        )
        designs |= {"dense": self._space.largest_dense(), "switch": self._space.switch()}
        if until == "search":
            return None
        trained: dict[str, Stage] = {
            system: training.train(system, designs[system]) for system in recipe.systems
        }
        systems = dict(trained)
        if recipe.fine_tuning:
            winner = designs["automoe"]
            systems |= training.inherit(supernet_stage, supernet, winner, recipe.fine_tuning)
        if until == "train":
            return None
        evaluated = {system: self._evaluate(system, stage) for system, stage in systems.items()}
        latency = self._latency(systems)
        if until == "evaluate":
            return None

        def report(folder: Path) -> None:
            results = {name: read_json(stage.folder / "result.json") for name, stage in evaluated.items()}
            latencies = read_json(latency.folder / "latency.json")
            for name, stage in systems.items():
                facts = _measured_facts(recipe, results[name], latencies[name])
                add_to_card(stage.folder / "model", facts)
            write_report(
                folder,
                results=results,
                latencies=latencies,
                chosen=read_json(search.folder / "chosen.json"),
                candidate_log=search.folder / "candidates.jsonl",
                trainings={"supernet": supernet_stage.folder}
                | {system: stage.folder for system, stage in trained.items()},
                score_label="validation loss" if recipe.search.rank_by == "loss" else "minus BLEU",
                profile=priced_by if recipe.latency.source == "profile" else None,
            )

        fingerprints = [stage.fingerprint for stage in (search, *evaluated.values(), latency)]
        stage = self._run.stage("report", fingerprints, report)
        return Outcome(trained["automoe"].folder / "model", stage.folder)

    def _evaluate(self, system: str, trained: Stage) -> Stage:
        """Translate the test set, score it, count costs; `result.json` and `translations.txt`."""
        recipe = self._recipe
        inputs = [
            trained.fingerprint,
            recipe.plain("translation"),
            dataclasses.asdict(recipe.protocol()),
            corpus_digest(recipe.data.test),
        ]

        def work(folder: Path) -> None:
            model, tokenizer = load_model(trained.folder / "model")
            pairs = load_pairs(recipe.data.test, recipe.data.limits)[0]
            self._reporter.say(f"evaluate {system}: translating {len(pairs)} sentences")
            language = recipe.data.target_language
            evaluation = evaluate_model(model, tokenizer, pairs, language, recipe.translation, BEAM_TOKENS)
            shares = {use.layer: use.shares for use in evaluation.expert_use}
            counts = count_costs(recipe, model.architecture)
            counts_as_routed = count_costs(recipe, model.architecture, shares)
            (folder / "translations.txt").write_text(
                "\n".join([*evaluation.translations, ""]), encoding="utf-8"
            )
            write_json(
                folder / "result.json",
                {
                    "system": system,
                    "architecture": model.architecture.to_dict(),
                    "scores": dataclasses.asdict(evaluation.scores),
                    "counts": dataclasses.asdict(counts),  # every expert equally likely
                    "counts_as_routed": dataclasses.asdict(counts_as_routed),
                    "translation_seconds": evaluation.translation_seconds,
                    "routing_shares": shares,
                    "training": read_json(trained.folder / "training.json"),
                },
            )
            self._reporter.say(f"evaluate {system}: BLEU {evaluation.scores.bleu:.2f}")

        return self._run.stage(f"evaluate-{system}", inputs, work)

    def _latency(self, trained: Mapping[str, Stage]) -> Stage:
        """Measure every trained system side by side, so that the ratios can be believed."""
        inputs = [
            {name: stage.fingerprint for name, stage in trained.items()},
            dataclasses.asdict(self._recipe.protocol()),
            self._recipe.latency.runs,
        ]

        def work(folder: Path) -> None:
            models = {name: load_model(stage.folder / "model")[0] for name, stage in trained.items()}
            self._reporter.say(f"latency: {len(models)} systems, {self._recipe.latency.runs} runs each")
            measured = measure_together(self._recipe, models)
            write_json(
                folder / "latency.json",
                {
                    name: {**dataclasses.asdict(latency), "noise": why_noisy(latency)}
                    for name, latency in measured.items()
                },
            )

        return self._run.stage("latency", inputs, work)


def _measured_facts(recipe: Recipe, result: Mapping[str, Any], latency: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's card says of it."""
    protocol = recipe.protocol()
    train = recipe.data.train
    return {
        "source_language": recipe.data.source_language,
        "target_language": recipe.data.target_language,
        "corpus": train.dataset or Path(train.path or train.source_path or "").name,
        "BLEU": result["scores"]["bleu"],
        "BLEU signature": result["scores"]["bleu_signature"],
        "chrF": result["scores"]["chrf"],
        "sparsity": result["counts"]["sparsity"],
        "FLOPs as routed on the test set": result["counts_as_routed"]["flops"],
        "latency, ms a sentence": latency["latency_ms"],
        "latency protocol": ", ".join(f"{k} {v}" for k, v in dataclasses.asdict(protocol).items()),
    }
