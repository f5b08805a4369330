"""Which systems of the results table are found by searching, how, and where: three tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from automoe.design.space import SearchSpace
from automoe.run.recipe import Recipe
from automoe.search.evolution import EvolutionSettings, evolution
from automoe.search.log import SearchName
from automoe.search.random_search import random_search
from automoe.search.strategy import Strategy

SPACES: dict[str, Callable[[SearchSpace], SearchSpace]] = {
    "whole": lambda space: space,
    "dense": SearchSpace.dense,
}
"""Name of a part of the recipe's space to that part."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a strategy may spend.

    Attributes:
        algorithm: the recipe's `search.algorithm`.
        candidates: to be scored: at first as many as the algorithm scores at most; after AutoMoE's own
            search as many as that did score, for a fair comparison.
    """

    algorithm: EvolutionSettings
    candidates: int


STRATEGIES: dict[str, Callable[[Effort], tuple[Strategy, int]]] = {
    "evolution": lambda effort: (evolution(effort.algorithm), effort.algorithm.budget),
    "random": lambda effort: (random_search(effort.candidates), effort.candidates),
}
"""Name of a strategy to what makes it, and how many candidates it scores at most."""

SEARCHES: dict[str, SearchName] = {
    search.system: search
    for search in (
        SearchName("automoe", "evolution", "whole"),
        SearchName("hat", "evolution", "dense"),
        SearchName("random", "random", "whole"),
    )
}
"""Name of a system to the search that finds it; they are searched for in this order."""
_SHIPPED = dict(SEARCHES)


def wanted_searches(recipe: Recipe) -> list[SearchName]:
    """The searches that the recipe's systems need, in their order."""
    return [search for system, search in SEARCHES.items() if system in recipe.systems]


def changed_searches(searches: Sequence[SearchName]) -> list[dict[str, list[str]]]:
    """What a stage's inputs must say of searches that are not as shipped; nothing of those that are."""
    changed = {
        search.system: [search.strategy, search.space]
        for search in searches
        if search != _SHIPPED.get(search.system)
    }
    return [changed] if changed else []
