"""Search strategies: evolution (AutoMoE, Algorithm 1; after HAT) and random search beside it.

A strategy knows neither models nor devices: it is given callables for costs and score. It is a
deterministic function of its generator, the costs and the scores, so running it again with the
generator seeded alike and the same log continues a search that was killed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.constraint import Constraint
from automoe.search.evaluation import Cost, Evaluator, Pricing, Score
from automoe.search.feasibility import Sampled, check_feasible
from automoe.search.log import CandidateLog

Progress = Callable[[int, int, float], None]
"""Called after each scored candidate: (scored so far, planned at most, best score)."""

TRIES_PER_CANDIDATE = 100
"""Proposals made for each candidate wanted; a generation that runs out of them is just smaller."""


class Space(Sampled, Protocol):
    """What evolution needs of a search space; `automoe.design.space.SearchSpace` has it."""

    def mutate(self, parent: Architecture, probability: float, rng: random.Random) -> Architecture: ...
    def cross(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture: ...


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

    iterations: int = 15
    population: int = 125
    parents: int = 25
    mutations: int = 50
    mutation_probability: float = 0.3
    crossovers: int = 50

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # of a recipe

    def __post_init__(self) -> None:
        lowest = {"iterations": 0, "population": 1, "parents": 1, "mutations": 0, "crossovers": 0}
        problems = [
            f"{name}: expected at least {least}, got {getattr(self, name)}"
            for name, least in lowest.items()
            if getattr(self, name) < least
        ]
        if not 0 <= self.mutation_probability <= 1:
            problems.append(f"mutation_probability: expected 0 to 1, got {self.mutation_probability}")
        if self.parents > self.population:
            problems.append(f"parents: {self.parents}, but the population has only {self.population}")
        if problems:
            raise InputError("settings of the evolutionary search", problems)

    @property
    def budget(self) -> int:
        """How many candidates are scored, at most."""
        return self.population + self.iterations * (self.mutations + self.crossovers)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Args:
        best: the feasible candidate with the lowest score; of equals the first.
        candidates: all scored (so feasible) candidates, in the order they were evaluated.
        refusals: why each architecture that could not be priced was left out.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    refusals: tuple[InputError, ...] = ()


def evolve(
    space: Space,
    settings: EvolutionSettings,
    constraints: Sequence[Constraint],
    costs: Mapping[str, Cost],
    score: Score,
    rng: random.Random,
    log: CandidateLog,
    progress: Progress | None = None,
    strategy: str = "evolution",
) -> SearchResult:
    """The best architecture that evolution finds: AutoMoE (arXiv 2210.07535), Algorithm 1.

    The initial population is random. Each generation keeps the best `parents`, and adds mutants of
    random parents and crossovers of random pairs of them. Only new, feasible architectures enter a
    population; the last population is scored too. A search that finds nothing new any more ends early.

    Args:
        costs: cost name -> callable. All are logged; a latency is asked for only of candidates that
            satisfy the constraints on the other costs. One that it refuses to price is not feasible.
        score: lower is better; called for feasible candidates only, once each.
        rng: seeded alike, with the same `log`, it continues a search that was killed.
        strategy: the search's name in the log.

    Raises:
        InputError: no member of the space satisfies the constraints, or one is on a cost not in `costs`.
        ValueError: a cost or score is not finite.
    """
    fallback = check_feasible(space, constraints, costs, rng, log)
    pricing = Pricing(costs, constraints, log)
    run = _Run(Evaluator(strategy, pricing, score, log), progress, settings.budget)
    parents: list[Candidate] = []

    def mutant() -> Architecture:
        return space.mutate(rng.choice(parents).architecture, settings.mutation_probability, rng)

    def crossover() -> Architecture:
        a, b = rng.sample(parents, 2)
        return space.cross(a.architecture, b.architecture, rng)

    population = run.initial(lambda: space.sample(rng), settings.population, fallback)
    for iteration in range(1, settings.iterations + 1):
        parents = sorted(population, key=_score)[: settings.parents]
        children = run.collect(mutant, settings.mutations, iteration)
        if len(parents) >= 2:
            children += run.collect(crossover, settings.crossovers, iteration)
        if not children:
            break
        population = parents + children
    return run.result(pricing)


def random_search(
    space: Sampled,
    budget: int,
    constraints: Sequence[Constraint],
    costs: Mapping[str, Cost],
    score: Score,
    rng: random.Random,
    log: CandidateLog,
    progress: Progress | None = None,
    strategy: str = "random",
) -> SearchResult:
    """The best of `budget` distinct random feasible architectures; arguments and errors as in `evolve`.

    For a fair comparison the budget is `EvolutionSettings.budget`, or how many candidates evolution
    did score.
    """
    if budget < 1:
        raise InputError("settings of the random search", [f"budget: expected at least 1, got {budget}"])
    fallback = check_feasible(space, constraints, costs, rng, log)
    pricing = Pricing(costs, constraints, log)
    run = _Run(Evaluator(strategy, pricing, score, log), progress, budget)
    run.initial(lambda: space.sample(rng), budget, fallback)
    return run.result(pricing)


class _Run:
    """The candidates of one search under way; a strategy proposes architectures to it."""

    def __init__(self, evaluator: Evaluator, progress: Progress | None, planned: int) -> None:
        self._evaluator, self._progress, self._planned = evaluator, progress, planned
        self._scored: list[Candidate] = []

    def initial(
        self, propose: Callable[[], Architecture], wanted: int, fallback: Architecture
    ) -> list[Candidate]:
        """The first generation; the one architecture known to be feasible when no proposal was."""
        found = self.collect(propose, wanted, iteration=0)
        return found or self.collect(lambda: fallback, 1, iteration=0)

    def collect(self, propose: Callable[[], Architecture], wanted: int, iteration: int) -> list[Candidate]:
        """Up to `wanted` new feasible candidates among `TRIES_PER_CANDIDATE` times as many proposals."""
        found: list[Candidate] = []
        for _ in range(wanted * TRIES_PER_CANDIDATE):
            if len(found) == wanted:
                break
            architecture = propose()
            if architecture in self._evaluator.seen:
                continue
            candidate = self._evaluator.evaluate(architecture, iteration)
            if candidate is None:
                continue
            found.append(candidate)
            self._scored.append(candidate)
            if self._progress:
                self._progress(len(self._scored), self._planned, _score(self.best()))
        return found

    def best(self) -> Candidate:
        return min(self._scored, key=_score)

    def result(self, pricing: Pricing) -> SearchResult:
        return SearchResult(self.best(), tuple(self._scored), tuple(pricing.refusals.values()))


def _score(candidate: Candidate) -> float:
    if candidate.score is None:
        raise ValueError(f"{candidate.architecture} was not scored")
    return candidate.score
