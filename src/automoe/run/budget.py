"""The stage `budget`: every search's constraints as numbers, and whether its space can keep them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from automoe.cost.costs import Conditions, constraints_of, prices, share_of
from automoe.cost.sources import latency_source
from automoe.errors import InputError
from automoe.run.context import Run
from automoe.run.device_profile import bounded_measured_costs, latency_inputs
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
    inputs = [
        {name: repr(space) for name, space in run.loaded.spaces.items()},
        wanted,
        run.baseline.to_dict(),
        recipe.plain("model"),
        latency_inputs(run, latency_file),
    ]

    def work(folder: Path) -> None:
        priced = candidate_prices(run, latency_file)
        log = CandidateLog(folder / "candidates.jsonl")
        found: dict[str, dict[str, float]] = {}
        for system in recipe.searched:
            bounds = {name: _bound(run, name, bound, priced) for name, bound in wanted[system.name].items()}
            space, rng = run.loaded.spaces[system.name], random.Random(system.name)
            check_feasible(space, constraints_of(bounds), priced, rng, log, space_name=part_name(system))
            found[system.name] = bounds
        write_json(folder / "constraints.json", found)

    stage = run.folder.stage("budget", inputs, work)
    found = read_stage_json(stage.folder / "constraints.json")
    constraints = {name: constraints_of(bounds) for name, bounds in found.items()}
    for name, several in constraints.items():
        run.reporter.say(f"  {name}: {', '.join(map(str, several)) or 'no constraint'}")
    return Budget(stage, constraints, latency_file)


def candidate_prices(run: Run, latency_file: Path | None) -> dict[str, Price]:
    """Cost name to how that cost of a candidate is found; none that is measured without a bound on one."""
    recipe = run.recipe
    measured = bounded_measured_costs(recipe)
    if not measured:
        return prices(Conditions(run.protocol))
    latency_ms = latency_source(run.protocol, recipe.latency, latency_file, run.reporter.say)
    return prices(Conditions(run.protocol, latency_ms), {"latency_ms", *measured})


def part_name(system: System) -> str:
    """What the log calls the part of the space in which a system is searched for."""
    name = "whole" if system.space is None else Path(system.space).stem
    return name if system.experts == "any" else "dense" if system.space is None else f"{name} dense"


def _bound(run: Run, name: str, bound: RecipeBound, priced: Mapping[str, Price]) -> float:
    share = share_of(bound)
    if share is None:
        return float(bound)
    try:
        return share * priced[name].of(run.baseline)
    except InputError as error:
        raise InputError(
            f"constraints.{name}: {bound} is a share of what the baseline costs, which has no price",
            [str(error), "give the bound as a number, or use another latency.source"],
        ) from error
