"""NSGA-II (Deb et al. 2002, doi:10.1109/4235.996017): the whole front of several objectives in one search."""

from __future__ import annotations

import random
from collections.abc import Sequence

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.evolution import EvolutionSettings
from automoe.search.pareto import SearchObjective, best_spread
from automoe.search.strategy import Proposals, Space, Strategy, new_candidates, random_candidates


def nsga2(settings: EvolutionSettings, objectives: Sequence[SearchObjective]) -> Strategy:
    """Evolution towards everything that is best at something.

    As `automoe.search.evolution`, and as many candidates, but the parents of a generation are those of the
    first fronts, the least crowded first (`automoe.search.pareto`), and the better of two drawn at random is
    bred from. Mutation and crossover are the space's own, on its genes. Constraints are kept by all: what
    breaks one is no candidate.

    Args:
        objectives: at least two. A candidate of which one is not known (a latency that a predictor refuses)
            is not bred from.

    Raises:
        InputError: fewer than two objectives, or one twice.
    """
    names = [objective.name for objective in objectives]
    if len(names) < 2 or len(set(names)) < len(names):
        problem = f"objectives: expected at least two, each once, got {', '.join(names) or 'none'}"
        raise InputError("settings of the search for a front", [problem])

    def proposals(space: Space, feasible: Architecture, rng: random.Random) -> Proposals:
        parents: list[Candidate] = []

        def mutant() -> Architecture:
            parent = parents[_better_of_two(len(parents), rng)]
            return space.mutate(parent.architecture, settings.mutation_probability, rng)

        def crossover() -> Architecture:
            a = _better_of_two(len(parents), rng)
            others = parents[:a] + parents[a + 1 :]
            b = others[_better_of_two(len(others), rng)]
            return space.cross(parents[a].architecture, b.architecture, rng)

        population = yield from random_candidates(space, feasible, rng, settings.population)
        for iteration in range(1, settings.iterations + 1):
            parents = best_spread(population, objectives, settings.parents)
            if not parents:
                break
            children = yield from new_candidates(mutant, settings.mutations, iteration)
            if len(parents) >= 2:
                children += yield from new_candidates(crossover, settings.crossovers, iteration)
            if not children:
                break
            population = parents + children

    return proposals


def _better_of_two(count: int, rng: random.Random) -> int:
    """The earlier of two random places among `count`, of which the first is the best."""
    return min(rng.randrange(count), rng.randrange(count))
