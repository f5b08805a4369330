"""`automoe pick`: the best candidate under another budget, of those that a run's searches scored; trained.

choice-NAME     who keeps the bounds, measured where a bound is on what is measured
finals-NAME     their race, where the recipe has finals
train-NAME      the winner from scratch
evaluate-NAME   BLEU, chrF, costs, routing

Neither a supernet nor a search is made: the scores are those of the searches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from automoe.cost.costs import COSTS, constraints_of, measured_names
from automoe.errors import InputError
from automoe.progress import Reporter
from automoe.run.context import Run, check_engines
from automoe.run.corpora import corpus_values
from automoe.run.device_profile import find_latency_file, find_throughput_file, is_of_batches
from automoe.run.evaluate import evaluate
from automoe.run.finals import forget_losers, run_finals
from automoe.run.folder import MayOverwrite, RunFolder, Stage, never, read_stage_json
from automoe.run.front import ScoredSearches, scored_searches
from automoe.run.inputs import MEASURED, TOGETHER
from automoe.run.prepare import add_shortlists, prepare
from automoe.run.recipe import LoadedRecipe, Recipe
from automoe.run.search import FINALIST_KEYS, Found, finalists_plain, find_finalists
from automoe.run.systems import name_of_a_folder
from automoe.run.train import train_system
from automoe.search.candidate import Candidate, score_of
from automoe.search.constraint import Constraint, violations
from automoe.search.feasibility import nearest
from automoe.search.pareto import SearchObjective, neighbours
from automoe.storage import write_json


@dataclass(frozen=True)
class Pick:
    """What is asked for.

    Attributes:
        bounds: cost name to the most it may be, or the least where larger is better.
        name: of the system that is made; by default it says the bounds.
        system: whose search is looked at; by default all of the seed.
        seed: by default the lowest that the run has.
    """

    bounds: Mapping[str, float]
    name: str | None = None
    system: str | None = None
    seed: int | None = None

    @property
    def system_name(self) -> str:
        """Of the system that is made, e.g. `pick-latency_ms-12`."""
        parts = (f"{name}-{value:g}" for name, value in self.bounds.items())
        return self.name or "-".join(["pick", *parts]).replace("+", "")


def pick(
    loaded: LoadedRecipe,
    path: Path,
    reporter: Reporter,
    asked: Pick,
    may_overwrite: MayOverwrite = never,
) -> tuple[Path, float]:
    """Take the best scored candidate that keeps the bounds, race and train as the recipe says.

    Args:
        path: the folder of the run, which was made of the recipe.

    Returns:
        The folder of the trained model, and its BLEU on the test set.

    Raises:
        InputError: a bound or the name is impossible; the run has no search, or was made from something else;
            no candidate keeps the bounds, or a cost was never priced; as `run_recipe`.
    """
    constraints = constraints_of(asked.bounds)
    _check(loaded.recipe, asked)
    searches = scored_searches(path, asked.seed, asked.system)
    candidates = _priced(searches, constraints)
    folder = RunFolder(path, loaded.recipe.name, reporter.say, may_overwrite)
    with folder.locked():
        run = Run(loaded, folder, reporter)
        check_engines(run)
        return _pick(run, asked, searches, candidates, constraints)


def _check(recipe: Recipe, asked: Pick) -> None:
    name, problems = asked.system_name, []
    if not asked.bounds:
        problems.append(f"expected at least one bound, such as --flops 2e7 (known: {', '.join(COSTS)})")
    try:
        name_of_a_folder(name)
    except ValueError as error:
        problems.append(f"--name: {error}")
    if name in (*recipe.names, *recipe.fine_tuned, *recipe.twins):
        problems.append(f"--name: {name} is a system of the recipe; choose another")
    if problems:
        raise InputError("nothing can be picked", problems)


def _priced(searches: ScoredSearches, constraints: Sequence[Constraint]) -> list[Candidate]:
    """The scored candidates that have each of the bounded costs, the cheapest first."""
    scored = searches.scored
    known = [name for name in COSTS if any(name in c.costs for c in scored)]
    problems = [
        f"{c.cost}: was not priced by {', '.join(searches.logs)} (priced: {', '.join(known)}); a search with "
        "a bound on it, or with it among its objectives, prices it"
        for c in constraints
        if c.cost not in known
    ]
    if problems:
        raise InputError(f"{searches.folder}: its candidates have no such cost", problems)
    priced = [candidate for candidate in scored if all(c.cost in candidate.costs for c in constraints)]
    return sorted(priced, key=lambda candidate: max(c.ratio(candidate.costs) for c in constraints))


def _within(
    candidates: Sequence[Candidate], constraints: Sequence[Constraint], searches: ScoredSearches
) -> list[Candidate]:
    """Those that keep all bounds.

    Raises:
        InputError: none does; it names the one that is closest.
    """
    within = [candidate for candidate in candidates if not violations(constraints, candidate.costs)]
    if not within:
        closest = [f"the closest: {candidates[0].architecture}"] if candidates else []
        raise InputError(
            f"{searches.folder}: none of the {len(candidates):,} scored candidates keeps this budget",
            [
                *nearest(constraints, [candidate.costs for candidate in candidates]),
                *closest,
                "allow what the closest needs, or search under this budget",
            ],
        )
    return within


def _pick(
    run: Run,
    asked: Pick,
    searches: ScoredSearches,
    candidates: Sequence[Candidate],
    constraints: Sequence[Constraint],
) -> tuple[Path, float]:
    within = _within(candidates, constraints, searches)
    name, seeded = asked.system_name, run.with_seed(searches.seed)
    values = run.values | run.former_values | corpus_values(run, "train", "valid", "test")
    run.folder.finished("prepare", values)
    seeded.folder.finished("supernet", values)
    searched = [seeded.folder.finished(f"search-{system}", values) for system in searches.logs]
    own = [f"{seeded.folder.path.name}/{stage}-{name}" for stage in ("choice", "finals", "train", "evaluate")]
    path = run.folder.path  # what the run made stays, whatever else the recipe says now
    made = (mark.parent.relative_to(path).as_posix() for mark in path.rglob("stage.json"))
    run.folder.expect(values, own, beside=[stage for stage in made if stage not in own])
    prepared = prepare(run)
    measured = bool(measured_names(asked.bounds))
    price_files = (find_latency_file(run), find_throughput_file(run)) if measured else ()
    found = _finalists(seeded, asked, searched, within, constraints, price_files)
    finals = run_finals(seeded, prepared, name, found)
    decider, winner = (found.stage, found.finalists[0]) if finals is None else finals
    # Their trainings may be those of the run itself, and not at their end yet.
    of_run = [*searches.finalists, *run.loaded.fixed().values()]
    forget_losers(seeded, prepared, [found], [winner, *of_run])
    picked = next(candidate for candidate in within if candidate.architecture == winner)
    for line in told_beside(picked, candidates, constraints, searches.score_label):
        run.reporter.say(f"{name}: {line}")
    trained = train_system(seeded, prepared, name, winner, found_by=decider)
    add_shortlists(seeded, prepared, {name: trained})
    evaluated = evaluate(seeded, name, trained)
    bleu = read_stage_json(evaluated.folder / "result.json")["scores"]["bleu"]
    return trained.folder / "model", float(bleu)


def _finalists(
    run: Run,
    asked: Pick,
    searched: Sequence[Stage],
    within: Sequence[Candidate],
    constraints: Sequence[Constraint],
    price_files: Sequence[Path | None],
) -> Found:
    """The stage `choice-NAME`: who races, or who is trained; `chosen.json` as a search writes it."""
    inputs = {
        "seed": run.seed,
        "the bounds": [dataclasses.asdict(constraint) for constraint in constraints],
        **run.chosen(*FINALIST_KEYS),
    }
    if measured_names(asked.bounds):
        inputs |= run.chosen("latency.runs", *MEASURED)
    if any(is_of_batches(run.recipe, name) for name in asked.bounds):
        inputs |= run.chosen("latency.throughput.runs", *TOGETHER)

    def work(folder: Path) -> None:
        finalists = find_finalists(run, within, asked.bounds, price_files, folder)
        write_json(folder / "chosen.json", finalists_plain(finalists, within))

    return Found.of(run.folder.stage(f"choice-{asked.system_name}", inputs, work, after=searched))


def told_beside(
    picked: Candidate, candidates: Sequence[Candidate], constraints: Sequence[Constraint], label: str
) -> list[str]:
    """What a candidate costs, and what its neighbours on the front do, in words.

    The front is that of the score and one bounded cost, of the candidates that keep the other bounds.

    Args:
        candidates: scored; each has every cost with a bound. `label`: what the score is.
    """
    lines = [f"{label} {score_of(picked):.4f} with {picked.architecture}"]
    for constraint in constraints:
        cost = COSTS[constraint.cost]
        others = [other for other in constraints if other is not constraint]
        rivals = [c for c in candidates if not violations(others, c.costs)]
        objective = SearchObjective(cost.name, cost.larger_is_better)
        own = picked.costs[cost.name]
        limit = "at least" if constraint.at_least else "at most"
        bound = f"{limit} {constraint.bound * cost.scale:{cost.digits}}"
        lines.append(f"{cost.heading} {own * cost.scale:{cost.digits}} ({bound})")
        for title, other in zip(("cheaper", "better"), neighbours(picked, rivals, objective), strict=True):
            if other is None:
                lines.append(f"  nothing scored is {title}")
                continue
            value = other.costs[cost.name]
            lines.append(
                f"  the next {title}: {value * cost.scale:{cost.digits}} ({value / own - 1:+.1%}), {label} "
                f"{score_of(other):.4f} ({score_of(other) - score_of(picked):+.4f}), {other.architecture}"
            )
    return lines
