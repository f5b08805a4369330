"""A run, from corpus to table; each stage is skipped when done and continues when interrupted.

prepare      vocabulary and token ids of the corpora
profile      where the time of this machine goes, for a bound on a measured cost, unless a file says
profile-throughput   the same for a server's batches, with latency.throughput and a bound on the throughput
budget       the constraints as numbers, and whether the space can keep them

and, once for each seed, in a folder of its own:

supernet     the largest network, trained by the sub-networks that a rule draws
search-*     the best architectures of each system that is searched for
finals-*     the race of those that decides by real training
train-*      each system from scratch; the first winner also from the supernet's weights
distil       a teacher, if the recipe has one, translates the training sources; then its students are trained
evaluate-*   BLEU, chrF, costs, routing
latency      all systems measured side by side, by the papers' protocol
throughput   the same for a server's batches, with latency.throughput

report       table, pictures and a page to look at, over all seeds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from automoe.design.architecture import Architecture
from automoe.model.sharing import Supernet
from automoe.progress import Reporter
from automoe.run.budget import Budget, find_budget
from automoe.run.context import Run, check_engines
from automoe.run.corpora import corpus_values
from automoe.run.device_profile import find_latency_file, find_throughput_file
from automoe.run.distil import distil
from automoe.run.distillation import distilled_name
from automoe.run.evaluate import evaluate, measure_systems, measure_throughput
from automoe.run.finals import forget_losers, run_finals
from automoe.run.folder import MayOverwrite, RunFolder, Stage, never
from automoe.run.prepare import Prepared, add_shortlists, prepare
from automoe.run.recipe import LoadedRecipe, Recipe
from automoe.run.report import SeedStages, report_run
from automoe.run.search import search_architectures
from automoe.run.supernet import train_supernet
from automoe.run.train import inherit, train_student, train_system

StageName = Literal["prepare", "budget", "supernet", "search", "finals", "train", "evaluate", "report"]


@dataclass(frozen=True)
class Outcome:
    """What a run made: `model`, a trained model's folder, and `report`, the folder with table and pictures.

    The model is that of the first searched system (without one, the first system), of the first seed.
    """

    model: Path
    report: Path


def run_recipe(
    loaded: LoadedRecipe,
    runs_folder: Path,
    reporter: Reporter,
    until: StageName = "report",
    may_overwrite: MayOverwrite = never,
) -> Outcome | None:
    """Run all stages of a recipe up to `until`, in `runs_folder/NAME`; the outcome once there is a report.

    Args:
        may_overwrite: asked before finished work, made from something else, is deleted.

    Raises:
        InputError: the run folder belongs to another recipe, or another process is at work in it; finished
            work may not be overwritten; bad data, an impossible budget, a full disk; a training diverged.
    """
    name = loaded.recipe.name
    folder = RunFolder(runs_folder / name, name, reporter.say, may_overwrite)
    with folder.locked():
        return _run(Run(loaded, folder, reporter), until)


def stage_names(recipe: Recipe, until: StageName) -> list[str]:
    """Every stage that a run up to `until` may come to, in order."""
    searched = [system.name for system in recipe.searched]
    trained = [*recipe.names, *recipe.fine_tuned]
    students = list(recipe.twins)
    first: dict[StageName, list[str]] = {
        "supernet": ["supernet"] if searched else [],
        "search": [f"search-{name}" for name in searched],
        "finals": [f"finals-{name}" for name in searched if recipe.finals],
        "train": [f"train-{name}" for name in trained],
    }
    then: dict[StageName, list[str]] = {
        "train": [f"train-{name}" for name in students],
        "evaluate": [
            *(f"evaluate-{name}" for name in (*trained, *students)),
            "latency",
            *(["throughput"] if recipe.latency.throughput else []),
        ],
    }
    profiles = ["profile", *(["profile-throughput"] if recipe.latency.throughput else [])]
    wanted = get_args(StageName)[: get_args(StageName).index(until) + 1]
    names = ["prepare"] if until == "prepare" else ["prepare", *profiles, "budget"]
    for group in _groups(recipe):
        names += _of_seeds(group, wanted, first)
        if students and "train" in wanted:
            names.append(f"seed-{group[0]}/distil" if _has_teacher_a_seed(recipe) else "distil")
        names += _of_seeds(group, wanted, then)
    names = list(dict.fromkeys(names))
    return [*names, "report"] if until == "report" else names


def _of_seeds(
    seeds: Sequence[int], wanted: Sequence[StageName], stages: Mapping[StageName, Sequence[str]]
) -> list[str]:
    return [f"seed-{seed}/{name}" for seed in seeds for stage in wanted for name in stages.get(stage, ())]


def _groups(recipe: Recipe) -> list[tuple[int, ...]]:
    """The seeds that go on together: one at a time, but all where those of all teach together."""
    together = recipe.distillation is not None and recipe.distillation.over_seeds(recipe.names)
    return [recipe.seeds] if together else [(seed,) for seed in recipe.seeds]


def _has_teacher_a_seed(recipe: Recipe) -> bool:
    """Whether each seed has a teacher of its own, so that its translations are with the seed's stages."""
    given, names = recipe.distillation, recipe.names
    return given is not None and bool(given.taught_by(names)) and not given.over_seeds(names)


def _run(run: Run, until: StageName) -> Outcome | None:
    recipe = run.recipe
    check_engines(run)
    corpora = corpus_values(run, "train", "valid", "test")  # what is wrong with the test set is known now
    run.folder.expect(run.values | run.former_values | corpora, stage_names(recipe, until))
    prepared = prepare(run)
    if until == "prepare":
        return None
    budget = find_budget(run, find_latency_file(run), find_throughput_file(run))
    if until == "budget":
        return None
    finished: dict[int, SeedStages] = {}
    for group in _groups(recipe):
        parts = {seed: run.with_seed(seed) for seed in group}
        made = {seed: _train_seed(part, prepared, budget, until) for seed, part in parts.items()}
        trainings = {seed: trained for seed, trained in made.items() if trained is not None}
        if not trainings:
            continue
        for seed, trained in _with_students(run, prepared, trainings).items():
            add_shortlists(parts[seed], prepared, trained.systems)
            if until != "train":
                finished[seed] = _judge_seed(parts[seed], trained)
    if until != "report":
        return None
    report = report_run(run, prepared, finished, budget)
    main = run.values["main system"]
    return Outcome(finished[recipe.seeds[0]].trained[main].folder / "model", report.folder)


@dataclass(frozen=True)
class _Trained:
    """What the stages of one seed made, up to the trainings.

    Attributes:
        supernet: None where nothing is searched. `searches`, `finals`: by searched system.
        systems: the training of every system; a student is behind its twin.
        designs: the architecture of each system of the recipe.
        distilled: what the teacher translated, if there is one.
    """

    supernet: Stage | None
    searches: Mapping[str, Stage]
    finals: Mapping[str, Stage]
    systems: Mapping[str, Stage]
    designs: Mapping[str, Architecture]
    distilled: Stage | None = None

    def decider(self, system: str) -> Stage | None:
        """The stage that found the architecture of a system, if one did."""
        return self.finals.get(system) or self.searches.get(system)


def _train_seed(run: Run, prepared: Prepared, budget: Budget, until: StageName) -> _Trained | None:
    """The stages of one seed up to the trainings; None when `until` comes before their end."""
    recipe = run.recipe
    supernet: tuple[Stage, Supernet] | None = None
    if recipe.searched:
        supernet = train_supernet(run, prepared)
    if until == "supernet":
        return None
    found = search_architectures(run, prepared, *supernet, budget) if supernet else {}
    if until == "search":
        return None
    races = {name: run_finals(run, prepared, name, search) for name, search in found.items()}
    finals = {name: finals for name, finals in races.items() if finals is not None}
    designs = run.loaded.fixed()
    designs |= {name: search.finalists[0] for name, search in found.items()}
    designs |= {name: winner for name, (_, winner) in finals.items()}
    deciders = {name: search.stage for name, search in found.items()}
    deciders |= {name: stage for name, (stage, _) in finals.items()}
    forget_losers(run, prepared, found.values(), designs.values())
    if until == "finals":
        return None
    trained: dict[str, Stage] = {}
    for system in sorted(recipe.systems, key=lambda system: system.minutes_of is not None):
        minutes_of = trained[system.minutes_of] if system.minutes_of else None
        trained[system.name] = train_system(
            run, prepared, system.name, designs[system.name], minutes_of, deciders.get(system.name)
        )
    trained = {system.name: trained[system.name] for system in recipe.systems}
    if recipe.fine_tuning and supernet:
        winner = recipe.searched[0].name
        settings = recipe.fine_tuning
        trained |= inherit(run, prepared, *supernet, winner, designs[winner], settings, deciders[winner])
    return _Trained(
        supernet=supernet[0] if supernet else None,
        searches={name: search.stage for name, search in found.items()},
        finals={name: stage for name, (stage, _) in finals.items()},
        systems=trained,
        designs=designs,
    )


def _with_students(run: Run, prepared: Prepared, trainings: Mapping[int, _Trained]) -> dict[int, _Trained]:
    """The same with the students of each seed, which a teacher has translated for, if the recipe has one."""
    recipe, distillation = run.recipe, run.recipe.distillation
    if distillation is None:
        return dict(trainings)
    names = distillation.taught_by(recipe.names)
    teachers = [trained.systems[name] for trained in trainings.values() for name in names]
    (first, *_) = trainings
    taught = distil(run.with_seed(first) if _has_teacher_a_seed(recipe) else run, prepared, teachers)
    minutes = {system.name for system in recipe.systems if system.minutes_of is not None}
    taught_ones = {}
    for seed, trained in trainings.items():
        systems: dict[str, Stage] = {}
        for name, stage in trained.systems.items():
            systems[name] = stage
            if name in distillation.students:
                steps_of = stage if name in minutes else None
                systems[distilled_name(name)] = train_student(
                    run.with_seed(seed), taught, name, trained.designs[name], steps_of, trained.decider(name)
                )
        taught_ones[seed] = replace(trained, systems=systems, distilled=taught.stage)
    return taught_ones


def _judge_seed(run: Run, trained: _Trained) -> SeedStages:
    """The stages of one seed that say what its systems are worth."""
    evaluated = {system: evaluate(run, system, stage) for system, stage in trained.systems.items()}
    return SeedStages(
        supernet=trained.supernet,
        searches=trained.searches,
        finals=trained.finals,
        trained=trained.systems,
        evaluated=evaluated,
        latency=measure_systems(run, trained.systems),
        throughput=measure_throughput(run, trained.systems),
        distilled=trained.distilled,
    )
