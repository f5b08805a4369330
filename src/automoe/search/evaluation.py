"""Evaluating candidates: cheap costs first, nothing twice, everything in the log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.constraint import MEASURED, Constraint, violations
from automoe.search.log import CandidateLog, Entry

Cost = Callable[[Architecture], float]
"""A cost of an architecture, in the unit its name says.

One of `constraint.MEASURED` may raise InputError for an architecture that it cannot price, for instance
one outside the range of a latency predictor."""

Score = Callable[[Architecture], float]
"""How bad an architecture is: lower is better (a validation loss; -BLEU)."""


class Pricing:
    """The costs of architectures, each computed once: what the log knows is taken from it.

    Args:
        costs: cost name -> callable. Those in `constraint.MEASURED` are computed last.
        constraints: which costs may be how large.
        log: the memory.

    Attributes:
        refusals: the architectures that could not be priced, and why.

    Raises:
        InputError: a constraint on a cost that `costs` cannot compute.
    """

    def __init__(
        self, costs: Mapping[str, Cost], constraints: Sequence[Constraint], log: CandidateLog
    ) -> None:
        problems = [
            f"{constraint}: no way to compute this cost was given (there are: {', '.join(costs) or 'none'})"
            for constraint in constraints
            if constraint.cost not in costs
        ]
        if problems:
            raise InputError("constraints", problems)
        self.constraints = tuple(constraints)
        self.refusals: dict[Architecture, InputError] = {}
        self._counted = {name: cost for name, cost in costs.items() if name not in MEASURED}
        self._measured = {name: cost for name, cost in costs.items() if name in MEASURED}
        self._log = log

    def counted(self, architecture: Architecture) -> dict[str, float]:
        """The costs that need no measuring."""
        return self._compute(self._counted, architecture)

    def measured(self, architecture: Architecture) -> dict[str, float]:
        """The costs that a device, or what is known of one, is needed for; none if it was refused."""
        try:
            return self._compute(self._measured, architecture)
        except InputError as refusal:
            self.refusals[architecture] = refusal
            return {}

    def broken(self, costs: Mapping[str, float]) -> tuple[Constraint, ...]:
        """The constraints that those of `costs` that are known break."""
        return violations(self.constraints, costs)

    def keeps(self, costs: Mapping[str, float]) -> bool:
        """Whether every constraint is known to hold; a cost that is not known keeps no bound."""
        return all(c.cost in costs for c in self.constraints) and not self.broken(costs)

    def _compute(self, costs: Mapping[str, Cost], architecture: Architecture) -> dict[str, float]:
        known = self._log.known(architecture).costs
        return {
            name: known[name] if name in known else _finite(name, cost(architecture), architecture)
            for name, cost in costs.items()
        }


class Evaluator:
    """Prices, scores and logs the candidates of one strategy, each once.

    One line is written for a candidate when all that will be known of it is known: its costs if it
    is infeasible, its costs and its score if it is feasible. A kill loses at most the candidate in
    hand, on which nothing yet depends.

    Args:
        strategy: its name in the log.
        pricing: the costs and constraints.
        score: the score of a feasible candidate.
        log: where lines are written, and known scores are found.
    """

    def __init__(self, strategy: str, pricing: Pricing, score: Score, log: CandidateLog) -> None:
        self.seen: set[Architecture] = set()
        self._strategy, self._pricing, self._score, self._log = strategy, pricing, score, log

    def evaluate(self, architecture: Architecture, iteration: int) -> Candidate | None:
        """The candidate with all costs and its score, or None if it breaks a constraint or has no price.

        Raises:
            ValueError: a cost or the score is not a finite number; a search cannot rank it.
        """
        index = len(self.seen)
        self.seen.add(architecture)
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
        self._log.append(Entry(self._strategy, iteration, index, candidate, feasible))
        return candidate if feasible else None


def _finite(name: str, value: float, architecture: Architecture) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} of {architecture} is {value}")
    return float(value)
