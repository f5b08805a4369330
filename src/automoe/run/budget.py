"""The stage `budget`: every search's constraints as numbers, and whether its space can keep them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from automoe.cost.costs import COSTS, Conditions, constraints_of, prices, share_of
from automoe.cost.measure import measure_together
from automoe.cost.sources import is_of_another_machine, latency_source
from automoe.errors import InputError
from automoe.run.context import Run
from automoe.run.device_profile import price_inputs, priced_measured_costs
from automoe.run.folder import Stage, read_stage_json
from automoe.run.systems import RecipeBound, System
from automoe.search.constraint import Constraint
from automoe.search.evaluator import Price
from automoe.search.feasibility import check_feasible
from automoe.search.log import CandidateLog
from automoe.storage import write_json


@dataclass(frozen=True)
class Budget:
    """What every candidate has to keep.

    Attributes:
        stage: its folder has the candidates that were looked at.
        constraints: by searched system, in the units of their costs.
        latency_file: the profile or predictor that latencies are priced by, if one is.
    """

    stage: Stage
    constraints: Mapping[str, tuple[Constraint, ...]]
    latency_file: Path | None


def find_budget(run: Run, latency_file: Path | None) -> Budget:
    """Turn the recipe's constraints into numbers, and check that each search's space can keep them.

    This comes before the supernet: an impossible budget should not cost a training.
    """
    recipe = run.recipe
    wanted = {system.name: recipe.constraints_of(system) for system in recipe.searched}
    inputs = run.chosen("baseline.architecture") | price_inputs(run, latency_file)
    if priced_measured_costs(recipe):
        inputs |= run.chosen("latency.runs", "space")
    for name in wanted:
        inputs |= run.chosen(f"systems.{name}.space", f"systems.{name}.constraints")

    def work(folder: Path) -> None:
        priced = candidate_prices(run, latency_file)
        log = CandidateLog(folder / "candidates.jsonl")
        baseline = _remembered(_baseline_cost(run, latency_file, priced), folder / "baseline.json")
        found: dict[str, dict[str, float]] = {}
        for system in recipe.searched:
            bounds = {name: _bound(name, bound, baseline) for name, bound in wanted[system.name].items()}
            space, rng = run.loaded.spaces[system.name], random.Random(system.name)
            check_feasible(space, constraints_of(bounds), priced, rng, log, space_name=part_name(system))
            found[system.name] = bounds
        write_json(folder / "constraints.json", found)

    stage = run.folder.stage("budget", inputs, work)
    found = read_stage_json(stage.folder / "constraints.json")
    constraints = {name: constraints_of(found[name]) for name in wanted}
    for name, several in constraints.items():
        run.reporter.say(f"  {name}: {', '.join(map(str, several)) or 'no constraint'}")
    return Budget(stage, constraints, latency_file)


def candidate_prices(run: Run, latency_file: Path | None) -> dict[str, Price]:
    """Cost name to how that cost of a candidate is found; of measured ones those that a search asks for."""
    recipe = run.recipe
    measured = priced_measured_costs(recipe)
    if not measured:
        return prices(Conditions(run.protocol))
    latency_ms = latency_source(run.protocol, recipe.latency, latency_file, run.reporter.say)
    return prices(Conditions(run.protocol, latency_ms), {"latency_ms", *measured})


def part_name(system: System) -> str:
    """What the log calls the part of the space in which a system is searched for."""
    name = "whole" if system.space is None else Path(system.space).stem
    return name if system.experts == "any" else "dense" if system.space is None else f"{name} dense"


def _bound(name: str, bound: RecipeBound, baseline: Callable[[str], float]) -> float:
    """The number that a bound is; `baseline` tells what the baseline costs."""
    share = share_of(bound)
    if share is None:
        return float(bound)
    try:
        return share * baseline(name)
    except InputError as error:
        raise InputError(
            f"constraints.{name}: {bound} is a share of what the baseline costs, which has no price",
            [str(error), "give the bound as a number, or use another latency.source"],
        ) from error


def _remembered(cost: Callable[[str], float], path: Path) -> Callable[[str], float]:
    """`cost`, each asked once: a further system gets its share of the same figures, measured or not."""
    known: dict[str, float] = read_stage_json(path) if path.exists() else {}

    def asked_once(name: str) -> float:
        if name not in known:
            known[name] = cost(name)
            write_json(path, known)
        return known[name]

    return asked_once


def _baseline_cost(
    run: Run, latency_file: Path | None, priced: Mapping[str, Price]
) -> Callable[[str], float]:
    """What the baseline costs, by name of the cost.

    A profile or predictor of the space knows nothing of a baseline outside it: a deeper model takes more time
    a layer, when its weights leave the caches. So that is measured beside the space's largest dense member,
    whose price is known: the ratio of the two holds whatever the machine's speed is at the moment.
    """
    latency = run.recipe.latency
    beside = run.space.largest_dense()

    @lru_cache
    def measured_ms() -> float:
        run.reporter.say("budget: the baseline is outside the space, so its latency is measured")
        models = {"baseline": run.baseline, "beside": beside}
        found = measure_together(run.protocol, models, latency.runs)
        ratio = found["baseline"].latency_ms / found["beside"].latency_ms
        return ratio * priced["latency_ms"].of(beside)

    def cost(name: str) -> float:
        known = latency_file is None or run.baseline in run.space
        if known or not COSTS[name].measured or is_of_another_machine(latency, latency_file):
            return priced[name].of(run.baseline)
        return COSTS[name].price(run.baseline, Conditions(run.protocol, lambda _: measured_ms()))

    return cost
