"""A run, from corpus to table; each stage is skipped when done and continues when interrupted.

prepare      vocabulary and token ids of the corpora
profile      where the time of this machine goes, for a bound on a measured cost, unless a file says
budget       the constraints as numbers, and whether the space can keep them
supernet     the largest network, trained by a random sub-network each step
search       the best architecture of each system that is searched for
train-*      each system from scratch; the winner also from the supernet's weights
evaluate-*   BLEU, chrF, costs, routing
latency      all systems measured side by side, by the papers' protocol
report       table and pictures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from automoe.progress import Reporter
from automoe.run.budget import find_budget
from automoe.run.context import Run
from automoe.run.device_profile import find_latency_file
from automoe.run.evaluate import evaluate, measure_systems
from automoe.run.folder import RunFolder, Stage
from automoe.run.prepare import prepare
from automoe.run.recipe import LoadedRecipe
from automoe.run.report import report_run
from automoe.run.search import search_architectures
from automoe.run.supernet import train_supernet
from automoe.run.train import inherit, train_system

StageName = Literal["prepare", "supernet", "search", "train", "evaluate", "report"]


@dataclass(frozen=True)
class Outcome:
    """What a run made: `model`, the winner's folder, and `report`, the folder with table and pictures."""

    model: Path
    report: Path


def run_recipe(
    loaded: LoadedRecipe, runs_folder: Path, reporter: Reporter, until: StageName = "report"
) -> Outcome | None:
    """Run all stages of a recipe up to `until`, in `runs_folder/NAME`; the outcome once there is a report.

    Raises:
        InputError: the run folder belongs to another recipe; bad data, an impossible budget, a full disk, a
            training that diverged.
    """
    recipe, space = loaded.recipe, loaded.space
    folder = RunFolder(runs_folder / recipe.name, recipe.name, reporter.say)
    run = Run(recipe, space, folder, reporter)
    prepared = prepare(run)
    if until == "prepare":
        return None
    budget = find_budget(run, find_latency_file(run))
    supernet_stage, supernet = train_supernet(run, prepared)
    if until == "supernet":
        return None
    search_stage, designs = search_architectures(run, prepared, supernet_stage, supernet, budget)
    if until == "search":
        return None
    designs |= {"dense": space.largest_dense(), "switch": space.switch()}
    trained: dict[str, Stage] = {
        system: train_system(run, prepared, system, designs[system]) for system in recipe.systems
    }
    if recipe.fine_tuning:
        winner = designs["automoe"]
        trained |= inherit(run, prepared, supernet_stage, supernet, winner, recipe.fine_tuning)
    if until == "train":
        return None
    evaluated = {system: evaluate(run, system, stage) for system, stage in trained.items()}
    latency = measure_systems(run, trained)
    if until == "evaluate":
        return None
    report = report_run(
        run,
        supernet=supernet_stage,
        search=search_stage,
        trained=trained,
        evaluated=evaluated,
        latency=latency,
        latency_file=budget.latency_file,
    )
    return Outcome(trained["automoe"].folder / "model", report.folder)
