"""The stages `search-NAME`: the best architectures of each system that is found by searching."""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automoe.cost.costs import COSTS, measured_names
from automoe.cost.sources import is_of_another_machine, measure_against_budget
from automoe.design.architecture import Architecture
from automoe.design.space import SearchSpace
from automoe.errors import validate_plain
from automoe.model.sharing import Supernet
from automoe.progress import Reporter
from automoe.run.budget import Budget, candidate_prices, part_name
from automoe.run.context import Run
from automoe.run.device_profile import is_of_batches, price_inputs
from automoe.run.folder import Stage, read_stage_json
from automoe.run.inputs import GREEDY
from automoe.run.prepare import Prepared
from automoe.run.recipe import Recipe
from automoe.run.scoring import inherited_score, own_score, scored_again
from automoe.run.systems import STRATEGIES, Effort, System
from automoe.search.candidate import Candidate, score_of
from automoe.search.driver import SearchResult, run_search
from automoe.search.evaluator import Score
from automoe.search.finalists import choose_finalists
from automoe.search.log import CandidateLog, SearchName
from automoe.search.winner import Finalists, MeasureCandidate, Measured, Trial, measured_finalists
from automoe.storage import whole_file, write_json

FINALIST_KEYS = tuple(f"finals.{key}" for key in ("candidates", "dense", "min_distance", "per_shape"))
"""Of a recipe's `finals`, what decides who is a finalist."""


@dataclass(frozen=True)
class Found:
    """What one search found.

    Attributes:
        stage: its folder has all candidates, and `chosen.json`.
        finalists: the best that keep the budget, the best first; one where there are no finals.
        evaluated: how many candidates were scored, by part of the space.
    """

    stage: Stage
    finalists: tuple[Architecture, ...]
    evaluated: Mapping[str, int]

    @staticmethod
    def of(stage: Stage) -> Found:
        """What a stage wrote into `chosen.json`; nothing is evaluated where it only picks."""
        chosen = read_stage_json(stage.folder / "chosen.json")
        finalists = tuple(Architecture.from_dict(found["architecture"]) for found in chosen["finalists"])
        return Found(stage, finalists, chosen.get("evaluated", {}))


def search_architectures(
    run: Run, prepared: Prepared, supernet_stage: Stage, supernet: Supernet, budget: Budget
) -> dict[str, Found]:
    """Every search of the recipe, by system.

    A random search scores as many candidates, in each part of the space, as a search of another strategy
    before it under the same constraints did.
    """
    found: dict[str, Found] = {}
    for system in run.recipe.searched:
        beside = next(
            (
                found[other.name]
                for other in run.recipe.searched
                if other.name in found and _alike(run, system, other)
            ),
            None,
        )
        found[system.name] = _search(run, prepared, supernet_stage, supernet, budget, system, beside)
    return found


def _alike(run: Run, system: System, other: System) -> bool:
    """Whether two systems are the same problem, solved by different strategies."""
    return (
        system.search != other.search
        and (system.space, system.experts) == (other.space, other.experts)
        and run.recipe.constraints_of(system) == run.recipe.constraints_of(other)
    )


def _search(
    run: Run,
    prepared: Prepared,
    supernet_stage: Stage,
    supernet: Supernet,
    budget: Budget,
    system: System,
    beside: Found | None,
) -> Found:
    """One search; every candidate goes to `candidates.jsonl`.

    One that is alike, by another strategy, says how many candidates are scored.
    With a bound on a measured cost, the best candidates are measured until enough keep it (`measured.json`).
    """
    recipe, reporter = run.recipe, run.reporter
    bounds = recipe.constraints_of(system)
    bounds_measured = bool(measured_names(bounds))
    evaluated = None if beside is None else beside.evaluated
    inputs = {
        "seed": run.seed,
        "the budget": [dataclasses.asdict(constraint) for constraint in budget.constraints[system.name]],
        "candidates": evaluated,
        **run.chosen("search", *FINALIST_KEYS),
        **run.chosen(
            *(f"systems.{system.name}.{key}" for key in ("search", "experts", "space", "constraints"))
        ),
        **{name: value for name, value in run.values.items() if name == f"systems.{system.name}.objectives"},
        **price_inputs(run, *budget.price_files),
    }
    if bounds_measured:
        inputs |= run.chosen("latency.runs", "baseline.architecture")
    if any(is_of_batches(recipe, name) for name in bounds):
        inputs |= run.chosen("latency.throughput.runs")
    formerly = {}
    if recipe.search.own_steps:
        inputs |= run.chosen("training")
        formerly = run.formerly("training")
    if recipe.search.rank_by == "bleu":
        inputs |= run.chosen(*GREEDY)

    def work(folder: Path) -> None:
        start = time.monotonic()
        log_file = folder / "candidates.jsonl"
        continued = log_file.exists()
        if not continued:
            # What the budget was found feasible by: measured again, it might come out as infeasible.
            with whole_file(log_file) as temporary:
                shutil.copyfile(budget.stage.folder / "candidates.jsonl", temporary)
        score = inherited_score(run, supernet, prepared)
        results = _search_parts(run, budget, system, evaluated, score, CandidateLog(log_file))
        # The parts overlap, and an architecture has one score.
        candidates = list({c.architecture: c for r in results.values() for c in r.candidates}.values())
        ranked = candidates
        if recipe.search.own_steps:
            own = recipe.search.own_steps
            again = own_score(run, supernet, prepared, own, folder / "own_steps.jsonl")
            best = _choose(recipe, candidates, own.candidates)
            ranked = scored_again(run, best, again, f"search {system.name}: own steps")
        finalists = find_finalists(run, ranked, bounds, budget.price_files, folder)
        _say_found(reporter, system, results.values(), finalists, _finalists_wanted(recipe))
        write_json(
            folder / "chosen.json",
            {
                "strategy": system.search,
                "evaluated": {part: len(result.candidates) for part, result in results.items()},
                "not_priced": sum(len(result.refusals) for result in results.values()),
                "seconds": time.monotonic() - start,
                "continued": continued,
                **finalists_plain(finalists, candidates),
            },
        )

    leaders = [budget.stage, *([] if beside is None else [beside.stage])]
    stage = run.folder.stage(
        f"search-{system.name}", inputs, work, after=[supernet_stage], led_by=leaders, formerly=formerly
    )
    return Found.of(stage)


def _search_parts(
    run: Run,
    budget: Budget,
    system: System,
    evaluated: Mapping[str, int] | None,
    score: Score,
    log: CandidateLog,
) -> dict[str, SearchResult]:
    """What is found in each part of the space; `evaluated`: how many candidates to score there, if fixed."""
    algorithm, strategy_name = run.recipe.search.algorithm, str(system.search)
    prices = candidate_prices(run, *budget.price_files)
    results = {}
    for part, space in _parts(run, system).items():
        candidates = algorithm.budget if evaluated is None else evaluated[part]
        effort = Effort(algorithm, candidates, system.sought)
        strategy, most = STRATEGIES[strategy_name](effort)
        search = SearchName(system.name, strategy_name, part)
        results[part] = run_search(
            search,
            space,
            strategy,
            budget.constraints[system.name],
            prices,
            score,
            random.Random(run.seed),
            log,
            _progress(run.reporter, search, most),
        )
    return results


def _parts(run: Run, system: System) -> dict[str, SearchSpace]:
    """Where a system is searched for, by the name of the part.

    With finals, the dense part is searched once more by itself: its best are to be among the finalists, and
    few members drawn at random are dense.
    """
    space = run.loaded.spaces[system.name]
    parts = {part_name(system): space}
    wanted = run.recipe.finals and run.recipe.finals.dense and system.experts == "any"
    if wanted and space != space.dense() and space.largest_dense() in space:
        parts[part_name(system.model_copy(update={"experts": "dense"}))] = space.dense()
    return parts


def find_finalists(
    run: Run,
    candidates: Sequence[Candidate],
    bounds: Mapping[str, Any],
    price_files: Sequence[Path | None],
    folder: Path,
) -> Finalists:
    """The best candidates, as many as the recipe lets race.

    Args:
        bounds: where one is on a measured cost, those win that keep it when measured (`measured.json`).
        price_files: as `Budget.price_files`. `folder`: of the stage.
    """
    recipe, measure = run.recipe, None
    if measured_names(bounds):
        measure = remembered(_measurer(run, bounds, price_files), folder / "measured.json")
    count = _finalists_wanted(recipe)
    at_least = [name for name in bounds if COSTS[name].larger_is_better]
    return measured_finalists(candidates, lambda pool: _choose(recipe, pool, count), measure, at_least)


def finalists_plain(finalists: Finalists, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What `chosen.json` says of them.

    Args:
        candidates: the finalists among them, with their inherited scores.
    """
    return {
        "finalists": [_trial_record(trial, candidates) for trial in finalists.kept],
        "rejected": [_trial_record(trial, candidates) for trial in finalists.rejected],
    }


def _finalists_wanted(recipe: Recipe) -> int:
    return recipe.finals.candidates if recipe.finals else 1


def _choose(recipe: Recipe, candidates: Sequence[Candidate], count: int) -> tuple[Candidate, ...]:
    """The best `count`, different enough, and enough dense ones among them."""
    finals = recipe.finals
    if finals is None:
        return tuple(sorted(candidates, key=score_of)[:count])
    dense = -(-count * finals.dense // finals.candidates)
    per_shape = -(-count * finals.per_shape // finals.candidates)
    return choose_finalists(
        candidates, count, dense=dense, min_distance=finals.min_distance, per_shape=per_shape
    )


def _measurer(run: Run, bounds: Mapping[str, Any], price_files: Sequence[Path | None]) -> MeasureCandidate:
    """Measures one candidate for real; the user sees each figure."""
    latency = run.recipe.latency
    judged = not any(is_of_another_machine(latency, file) for file in price_files)

    def measure(architecture: Architecture) -> Measured:
        measured = measure_against_budget(
            run.protocol, latency, bounds, architecture, run.baseline, judged=judged
        )
        run.reporter.say(f"  {architecture}: {measured}")
        if measured.noise:
            run.reporter.say(f"  {measured.noise}")
        return measured

    return measure


def remembered(measure: MeasureCandidate, path: Path) -> MeasureCandidate:
    """`measure`, each architecture once: figures are kept in `path`, so a killed search finds them there."""
    records: list[dict[str, Any]] = read_stage_json(path, kind=list) if path.exists() else []
    known = {
        Architecture.from_dict(record["architecture"]): validate_plain(
            Measured, record["measured"], f"{path}: is damaged"
        )
        for record in records
    }

    def measured_once(architecture: Architecture) -> Measured:
        if architecture not in known:
            known[architecture] = measure(architecture)
            records.append(
                {
                    "architecture": architecture.to_dict(),
                    "measured": dataclasses.asdict(known[architecture]),
                }
            )
            write_json(path, records)
        return known[architecture]

    return measured_once


def _progress(reporter: Reporter, search: SearchName, planned: int) -> Callable[[int, float], None]:
    bar = reporter.bar(f"search {search.system} ({search.space})")
    return lambda scored, best: bar(scored, planned, f"best {best:.3f}")


def _say_found(
    reporter: Reporter, system: System, results: Iterable[SearchResult], finalists: Finalists, count: int
) -> None:
    refusals = [refusal for result in results for refusal in result.refusals]
    if refusals:
        reporter.say(
            f"search {system.name}: {len(refusals):,} candidates were left out because their latency "
            f"could not be predicted; the first: {refusals[0]}"
        )
    if finalists.rejected:
        reporter.say(
            f"search {system.name}: {len(finalists.rejected)} with a good score broke the budget when "
            "measured"
        )
    if len(finalists.kept) < count:
        reporter.say(
            f"search {system.name}: {len(finalists.kept)} of the {count} finalists asked for: no more "
            "candidates are feasible; search longer, or relax the budget"
        )
    for place, trial in enumerate(finalists.kept, start=1):
        reporter.say(f"search {system.name}: {place}. {trial}")


def _trial_record(trial: Trial, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What `chosen.json` says of one candidate."""
    found = trial.candidate
    inherited = next(c.score for c in candidates if c.architecture == found.architecture)
    return {
        "architecture": found.architecture.to_dict(),
        "costs": dict(found.costs),
        "inherited_score": inherited,
        "score": found.score,
        "measured": None if trial.measured is None else dataclasses.asdict(trial.measured),
    }
