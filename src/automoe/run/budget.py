"""The stage `budget`: the recipe's constraints as numbers, and whether the spaces can keep them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from automoe.cost.costs import Conditions, constraints_of, measured_names, prices, share_of
from automoe.cost.sources import latency_source
from automoe.errors import InputError
from automoe.run.context import Run
from automoe.run.device_profile import latency_inputs
from automoe.run.folder import Stage, read_stage_json
from automoe.run.systems import SPACES, changed_searches, wanted_searches
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
        constraints: in the units of their costs.
        latency_file: the profile or predictor that latencies are priced by, if one is.
    """

    stage: Stage
    constraints: tuple[Constraint, ...]
    latency_file: Path | None


def find_budget(run: Run, latency_file: Path | None) -> Budget:
    """Turn the recipe's constraints into numbers, and check that the spaces can keep them.

    This comes before the supernet: an impossible budget should not cost a training.
    """
    recipe, space = run.recipe, run.space
    searches = wanted_searches(recipe)
    inputs = [
        repr(space),
        recipe.plain("search", "model"),
        latency_inputs(run, latency_file),
        "hat" in recipe.systems,
        *changed_searches(searches),
    ]

    def work(folder: Path) -> None:
        priced = candidate_prices(run, latency_file)
        bounds = {name: _bound(run, name, priced) for name in recipe.search.constraints}
        constraints = constraints_of(bounds)
        log = CandidateLog(folder / "candidates.jsonl")
        for name in dict.fromkeys(search.space for search in searches):
            rng = random.Random(recipe.search.seed)
            check_feasible(SPACES[name](space), constraints, priced, rng, log, space_name=name)
        write_json(folder / "constraints.json", bounds)

    stage = run.folder.stage("budget", inputs, work)
    constraints = constraints_of(read_stage_json(stage.folder / "constraints.json"))
    for constraint in constraints:
        run.reporter.say(f"  {constraint}")
    return Budget(stage, constraints, latency_file)


def candidate_prices(run: Run, latency_file: Path | None) -> dict[str, Price]:
    """Cost name to how that cost of a candidate is found; none that is measured without a bound on one."""
    recipe = run.recipe
    measured = measured_names(recipe.search.constraints)
    if not measured:
        return prices(Conditions(run.protocol))
    latency_ms = latency_source(run.protocol, recipe.latency, latency_file, run.reporter.say)
    return prices(Conditions(run.protocol, latency_ms), {"latency_ms", *measured})


def _bound(run: Run, name: str, priced: Mapping[str, Price]) -> float:
    bound = run.recipe.search.constraints[name]
    share = share_of(bound)
    if share is None:
        return float(bound)
    try:
        return share * priced[name].of(run.space.largest_dense())
    except InputError as error:
        raise InputError(
            f"search.constraints.{name}: {bound} is a share of the largest dense architecture's, "
            "which has no price",
            [str(error), "give the bound as a number, or use another latency.source"],
        ) from error
