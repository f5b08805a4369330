"""The stage `budget`: the recipe's constraints as numbers, and whether the spaces can keep them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from automoe.cost.sources import candidate_costs, latency_source, share_of
from automoe.design.space import SearchSpace
from automoe.errors import InputError
from automoe.progress import Reporter
from automoe.run.device_profile import bounds_latency, latency_inputs
from automoe.run.folder import RunFolder, Stage
from automoe.run.recipe import KNOWN_COSTS, LoadedRecipe, Recipe
from automoe.search.constraint import Constraint, parse_constraints
from automoe.search.evaluator import Price
from automoe.search.feasibility import check_feasible
from automoe.search.log import CandidateLog
from automoe.storage import read_json, write_json

SPACES: Mapping[str, Callable[[SearchSpace], SearchSpace]] = {
    "whole": lambda space: space,
    "dense": SearchSpace.dense,
}
"""Name of a part of the recipe's space to that part."""


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


def find_budget(
    loaded: LoadedRecipe, run: RunFolder, reporter: Reporter, latency_file: Path | None
) -> Budget:
    """Turn the recipe's constraints into numbers, and check that the spaces can keep them.

    This comes before the supernet: an impossible budget should not cost a training.
    """
    recipe, space = loaded.recipe, loaded.space
    inputs = [
        repr(space),
        recipe.plain("search", "model"),
        latency_inputs(recipe, latency_file),
        "hat" in recipe.systems,
    ]

    def work(folder: Path) -> None:
        prices = candidate_prices(recipe, latency_file, reporter.say)
        bounds = {name: _bound(loaded, name, prices) for name in recipe.search.constraints}
        constraints = parse_constraints(bounds, KNOWN_COSTS)
        log = CandidateLog(folder / "candidates.jsonl")
        for name in ("whole", "dense") if "hat" in recipe.systems else ("whole",):
            rng = random.Random(recipe.search.seed)
            check_feasible(SPACES[name](space), constraints, prices, rng, log, space_name=name)
        write_json(folder / "constraints.json", bounds)

    stage = run.stage("budget", inputs, work)
    constraints = parse_constraints(read_json(stage.folder / "constraints.json"), KNOWN_COSTS)
    for constraint in constraints:
        reporter.say(f"  {constraint}")
    return Budget(stage, constraints, latency_file)


def candidate_prices(
    recipe: Recipe, latency_file: Path | None, say: Callable[[str], None]
) -> dict[str, Price]:
    """Cost name to how that cost of a candidate is found; no latency without a bound on it.

    Args:
        say: hears what makes the figures doubtful.
    """
    latency_ms = latency_source(recipe, latency_file, say) if bounds_latency(recipe) else None
    return {
        name: Price(of, measured=name == "latency_ms")
        for name, of in candidate_costs(recipe, latency_ms).items()
    }


def _bound(loaded: LoadedRecipe, name: str, prices: Mapping[str, Price]) -> float:
    bound = loaded.recipe.search.constraints[name]
    share = share_of(bound)
    if share is None:
        return float(bound)
    try:
        return share * prices[name].of(loaded.space.largest_dense())
    except InputError as error:
        raise InputError(
            f"search.constraints.{name}: {bound} is a share of the largest dense architecture's, "
            "which has no price",
            [str(error), "give the bound as a number, or use another latency.source"],
        ) from error
