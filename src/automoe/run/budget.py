"""The stage `budget`: every search's constraints as numbers, and whether its space can keep them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from automoe.cost.costs import COSTS, Conditions, LatencyMs, Together, constraints_of, prices, share_of
from automoe.cost.measure import Latency, measure_together
from automoe.cost.sources import is_of_another_machine, latency_source, measure_batches
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.run.context import Run
from automoe.run.device_profile import (
    is_of_batches,
    price_inputs,
    priced_costs,
    priced_measured_costs,
    prices_batches,
    prices_latencies,
)
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
        throughput_file: the profile that a server's batches are priced by, if one is.
    """

    stage: Stage
    constraints: Mapping[str, tuple[Constraint, ...]]
    latency_file: Path | None
    throughput_file: Path | None = None

    @property
    def price_files(self) -> tuple[Path | None, Path | None]:
        """Both files, the latencies' first."""
        return self.latency_file, self.throughput_file


def find_budget(run: Run, latency_file: Path | None, throughput_file: Path | None = None) -> Budget:
    """Turn the recipe's constraints into numbers, and check that each search's space can keep them.

    This comes before the supernet: an impossible budget should not cost a training.
    """
    recipe = run.recipe
    wanted = {system.name: recipe.constraints_of(system) for system in recipe.searched}
    inputs = run.chosen("baseline.architecture") | price_inputs(run, latency_file, throughput_file)
    if priced_measured_costs(recipe):
        inputs |= run.chosen("latency.runs", "space")
    if prices_batches(recipe):
        inputs |= run.chosen("latency.throughput.runs")
    for name in wanted:
        inputs |= run.chosen(f"systems.{name}.space", f"systems.{name}.constraints")

    def work(folder: Path) -> None:
        conditions = candidate_conditions(run, latency_file, throughput_file)
        priced = _prices(run, conditions)
        log = CandidateLog(folder / "candidates.jsonl")
        cost = _baseline_cost(run, latency_file, throughput_file, conditions)
        baseline = _remembered(cost, folder / "baseline.json")
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
    return Budget(stage, constraints, latency_file, throughput_file)


def candidate_prices(
    run: Run, latency_file: Path | None, throughput_file: Path | None = None
) -> dict[str, Price]:
    """Cost name to how that cost of a candidate is found; of measured ones those that a search asks for."""
    return _prices(run, candidate_conditions(run, latency_file, throughput_file))


def candidate_conditions(
    run: Run, latency_file: Path | None, throughput_file: Path | None = None
) -> Conditions:
    """Under which candidates have their costs: what tells times, where a search asks for such."""
    recipe, latency_ms, together = run.recipe, None, None
    settings, say = recipe.latency, run.reporter.say
    if prices_latencies(recipe):
        latency_ms = latency_source(run.protocol, settings, latency_file, say)
    protocol = recipe.throughput_protocol()
    if prices_batches(recipe) and protocol is not None:
        together = Together(protocol.batch, latency_source(protocol, settings, throughput_file, say))
    return Conditions(run.protocol, latency_ms, together)


def _prices(run: Run, conditions: Conditions) -> dict[str, Price]:
    latency = ["latency_ms"] if conditions.latency_ms is not None else []
    return prices(conditions, {*priced_costs(run.recipe), *latency})


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
    run: Run, latency_file: Path | None, throughput_file: Path | None, conditions: Conditions
) -> Callable[[str], float]:
    """What the baseline costs, by name of the cost.

    A profile or predictor of the space knows nothing of a baseline outside it: a deeper model takes more time
    a layer, when its weights leave the caches. So that is measured beside the space's largest dense member,
    whose price is known: the ratio of the two holds whatever the machine's speed is at the moment.
    """
    latency, together = run.recipe.latency, conditions.together
    models = {"baseline": run.baseline, "beside": run.space.largest_dense()}

    def measured_ms(
        what: str, measure: Callable[[], Mapping[str, Latency]], source_ms: LatencyMs
    ) -> Callable[[Architecture], float]:
        @lru_cache
        def found_ms() -> float:
            run.reporter.say(f"budget: the baseline is outside the space, so its {what} is measured")
            found = measure()
            return found["baseline"].latency_ms / found["beside"].latency_ms * source_ms(models["beside"])

        return lambda _: found_ms()

    outside = replace(
        conditions,
        latency_ms=measured_ms(
            "latency", lambda: measure_together(run.protocol, models, latency.runs), conditions.latency
        ),
    )
    if together is not None and latency.throughput is not None:
        server = latency.throughput
        batch_ms = measured_ms(
            "throughput", lambda: measure_batches(run.protocol, server, models), together.batch_ms
        )
        outside = replace(outside, together=replace(together, batch_ms=batch_ms))

    def cost(name: str) -> float:
        file = throughput_file if is_of_batches(run.recipe, name) else latency_file
        known = file is None or run.baseline in run.space
        if known or not COSTS[name].measured or is_of_another_machine(latency, file):
            return COSTS[name].price(run.baseline, conditions)
        return COSTS[name].price(run.baseline, outside)

    return cost
