"""Evaluating candidates: cheap costs first, nothing twice, everything in the log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.constraint import Constraint, violations
from automoe.search.log import CandidateLog, LogEntry, SearchName

Score = Callable[[Architecture], float]
"""How bad an architecture is: lower is better (a validation loss; -BLEU)."""


@dataclass(frozen=True, slots=True)
class Price:
    """How one cost of an architecture is found.

    Args:
        of: the cost, in the unit its name says. One that is measured may raise InputError for an
            architecture that it cannot price, for instance one outside the range of a latency predictor.
        measured: a device, or what is known of one, is needed for it; it is asked for last, and only of
            architectures that keep all other bounds. Otherwise it is counted in no time.
    """

    of: Callable[[Architecture], float]
    measured: bool = False


class Pricing:
    """The costs of architectures, each computed once: what the log knows is taken from it.

    Args:
        prices: cost name -> how it is found.
        constraints: which costs may be how large, or how small.
        log: the memory.

    Attributes:
        refusals: the architectures that could not be priced, and why.

    Raises:
        InputError: a constraint on a cost without a price.
    """

    def __init__(
        self, prices: Mapping[str, Price], constraints: Sequence[Constraint], log: CandidateLog
    ) -> None:
        problems = [
            f"{constraint}: no way to compute this cost was given (there are: {', '.join(prices) or 'none'})"
            for constraint in constraints
            if constraint.cost not in prices
        ]
        if problems:
            raise InputError("constraints", problems)
        self.constraints = tuple(constraints)
        self.refusals: dict[Architecture, InputError] = {}
        self._prices = prices
        self._log = log

    def counted(self, architecture: Architecture) -> dict[str, float]:
        """The costs that need no measuring."""
        return self._compute(architecture, measured=False)

    def measured(self, architecture: Architecture) -> dict[str, float]:
        """The costs that a device, or what is known of one, is needed for; none if it was refused."""
        try:
            return self._compute(architecture, measured=True)
        except InputError as refusal:
            self.refusals[architecture] = refusal
            return {}

    def broken(self, costs: Mapping[str, float]) -> tuple[Constraint, ...]:
        """The constraints that those of `costs` that are known break."""
        return violations(self.constraints, costs)

    def keeps(self, costs: Mapping[str, float]) -> bool:
        """Whether every constraint is known to hold; a cost that is not known keeps no bound."""
        return all(c.cost in costs for c in self.constraints) and not self.broken(costs)

    def record(self, entry: LogEntry) -> None:
        """Log an entry, waiting for the disk if it took long: if it was scored, or measured.

        Tight constraints make many candidates that are only counted; these the system may write later.
        """
        candidate = entry.candidate
        measured = any(self._prices[name].measured for name in candidate.costs)
        self._log.append(entry, durable=measured or candidate.score is not None)

    def _compute(self, architecture: Architecture, *, measured: bool) -> dict[str, float]:
        known = self._log.known(architecture).costs
        return {
            name: known[name] if name in known else _finite(name, price.of(architecture), architecture)
            for name, price in self._prices.items()
            if price.measured == measured
        }


class Evaluator:
    """Prices, scores and logs the candidates of one search, each once.

    One line is written for a candidate when all that will be known of it is known: its costs if it
    is infeasible, its costs and its score if it is feasible. A kill loses at most the candidate in
    hand, on which nothing yet depends.

    Args:
        search: its name in the log.
        pricing: the costs and constraints.
        score: the score of a feasible candidate.
        log: where known scores are found.
    """

    def __init__(self, search: SearchName, pricing: Pricing, score: Score, log: CandidateLog) -> None:
        self._seen: set[Architecture] = set()
        self._search, self._pricing, self._score, self._log = search, pricing, score, log

    def evaluate(self, architecture: Architecture, iteration: int) -> Candidate | None:
        """The candidate with all costs and its score.

        None if it was evaluated before, breaks a constraint or has no price.

        Raises:
            ValueError: a cost or the score is not a finite number; a search cannot rank it.
        """
        if architecture in self._seen:
            return None
        index = len(self._seen)
        self._seen.add(architecture)
        costs = self._pricing.counted(architecture)
        if not self._pricing.broken(costs):
            costs |= self._pricing.measured(architecture)
        score = None
        feasible = self._pricing.keeps(costs)
        if feasible:
            score = self._log.known(architecture).score
            if score is None:
                score = _finite("score", self._score(architecture), architecture)
        candidate = Candidate(architecture, costs, score)
        self._pricing.record(LogEntry(self._search, iteration, index, candidate, feasible))
        return candidate if feasible else None


def _finite(name: str, value: float, architecture: Architecture) -> float:
    """`value` of `architecture`. ValueError, with its name, if it is not a finite number."""
    if not math.isfinite(value):
        raise ValueError(f"{name} of {architecture} is {value}")
    return float(value)
