"""A candidate of a search, and the front of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from automoe.design.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a search knows about one architecture.

    Args:
        architecture: the architecture.
        costs: cost name -> value, in the unit the name says; costs never computed are absent.
        score: lower is better (a validation loss; -BLEU); None when it was never scored.
    """

    architecture: Architecture
    costs: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None


def score_of(candidate: Candidate) -> float:
    """Its score, to rank by.

    Raises:
        ValueError: it was never scored.
    """
    if candidate.score is None:
        raise ValueError(f"{candidate.architecture} was not scored")
    return candidate.score


def front(
    candidates: Iterable[Candidate], cost: str, *, larger_is_better: bool = False
) -> tuple[Candidate, ...]:
    """The Pareto front of (score, cost), from the best cost to the worst.

    A candidate is on the front when no other is at least as good in both and better in one; of
    equals all are. Candidates without a score or without the cost are left out.

    Args:
        larger_is_better: of the cost, as of a throughput.
    """
    sign = -1 if larger_is_better else 1
    points = sorted(
        ((sign * c.costs[cost], c.score, c) for c in candidates if c.score is not None and cost in c.costs),
        key=lambda point: point[:2],
    )
    kept: list[tuple[float, float, Candidate]] = []
    for point in points:
        if not kept or point[1] < kept[-1][1] or point[:2] == kept[-1][:2]:
            kept.append(point)
    return tuple(candidate for _, _, candidate in kept)
