"""Evolutionary search: AutoMoE (arXiv 2210.07535), Algorithm 1; after HAT."""

from __future__ import annotations

import random
from dataclasses import dataclass

from automoe.design.architecture import Architecture
from automoe.errors import AtLeastOne, AtLeastZero, InputError, Share, checked
from automoe.search.candidate import Candidate, score_of
from automoe.search.strategy import Proposals, Space, Strategy, new_candidates, random_candidates


@checked("settings of the evolutionary search")
@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """The paper's Algorithm 1; the defaults are the paper's.

    Args:
        iterations: generations after the initial population; 0 is random search.
        population: architectures in the initial population.
        parents: the best of a population, kept for the next one and bred from.
        mutations, crossovers: children a generation, of each kind.
        mutation_probability: with which each gene of a mutant is drawn anew.

    Raises:
        InputError: listing every value out of range.
    """

    iterations: AtLeastZero = 15
    population: AtLeastOne = 125
    parents: AtLeastOne = 25
    mutations: AtLeastZero = 50
    mutation_probability: Share = 0.3
    crossovers: AtLeastZero = 50

    def __post_init__(self) -> None:
        if self.parents > self.population:
            problem = f"parents: {self.parents}, but the population has only {self.population}"
            raise InputError("settings of the evolutionary search", [problem])

    @property
    def budget(self) -> int:
        """How many candidates are scored, at most."""
        return self.population + self.iterations * (self.mutations + self.crossovers)


def evolution(settings: EvolutionSettings) -> Strategy:
    """The paper's evolutionary search.

    The initial population is random. Each generation keeps the best `parents`, and adds mutants of
    random parents and crossovers of random pairs of them. Only new, feasible architectures enter a
    population; the last population is scored too. A search that finds nothing new any more ends early.
    """

    def proposals(space: Space, feasible: Architecture, rng: random.Random) -> Proposals:
        parents: list[Candidate] = []

        def mutant() -> Architecture:
            return space.mutate(rng.choice(parents).architecture, settings.mutation_probability, rng)

        def crossover() -> Architecture:
            a, b = rng.sample(parents, 2)
            return space.cross(a.architecture, b.architecture, rng)

        population = yield from random_candidates(space, feasible, rng, settings.population)
        for iteration in range(1, settings.iterations + 1):
            parents = sorted(population, key=score_of)[: settings.parents]
            children = yield from new_candidates(mutant, settings.mutations, iteration)
            if len(parents) >= 2:
                children += yield from new_candidates(crossover, settings.crossovers, iteration)
            if not children:
                break
            population = parents + children

    return proposals
