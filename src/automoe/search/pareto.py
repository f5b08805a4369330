"""Several objectives at once: what dominates what, fronts in order, and how crowded a front is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from automoe.search.candidate import Candidate, front, score_of

LOSS = "loss"
"""The objective that is a candidate's score, whatever the search ranks by."""

Point: TypeAlias = tuple[float, ...]
"""A value an objective, each the better the lower."""


@dataclass(frozen=True, slots=True)
class SearchObjective:
    """What is to be good: the score, or a cost.

    Attributes:
        name: `LOSS`, or of a cost.
        larger_is_better: of the cost, as of a throughput.
    """

    name: str
    larger_is_better: bool = False


def point_of(candidate: Candidate, objectives: Sequence[SearchObjective]) -> Point | None:
    """Where a candidate is; None when one of the objectives is not known of it."""
    known = {**candidate.costs, LOSS: candidate.score}
    values = [
        (known.get(objective.name), -1 if objective.larger_is_better else 1) for objective in objectives
    ]
    found = tuple(sign * value for value, sign in values if value is not None)
    return found if len(found) == len(values) else None


def dominates(a: Point, b: Point) -> bool:
    """Whether `a` is at least as good as `b` in every objective, and better in one."""
    return a != b and all(of_a <= of_b for of_a, of_b in zip(a, b, strict=True))


def fronts(points: Sequence[Point]) -> list[list[int]]:
    """The points by how much is better than they are, as indices.

    The first front is what nothing dominates, each further one what only points of earlier fronts dominate;
    of equals all are in one front. A front is in order of the points: by the first objective, then the next.

    A point is dominated only by points that are before it in that order, so one pass is enough, in which a
    point goes to the first front where nothing dominates it (the efficient sort of Zhang et al. 2015,
    doi:10.1109/TEVC.2014.2308305).
    """
    found: list[list[int]] = []
    for index in sorted(range(len(points)), key=points.__getitem__):
        for of_rank in found:
            if not any(dominates(points[other], points[index]) for other in of_rank):
                of_rank.append(index)
                break
        else:
            found.append([index])
    return found


def crowding_distances(points: Sequence[Point]) -> list[float]:
    """How far from its neighbours each point of a front is: the more, the less is lost without it.

    The sum over the objectives of the distance between the next better and the next worse point, as a share
    of that objective's range; infinite for the best and the worst of an objective (Deb et al. 2002, NSGA-II,
    section III B). An objective in which all are equal adds nothing.
    """
    distances = [0.0] * len(points)
    for objective in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda index: points[index][objective])
        values = [points[index][objective] for index in order]
        if values[0] == values[-1]:
            continue
        distances[order[0]] = distances[order[-1]] = math.inf
        for place in range(1, len(order) - 1):
            distances[order[place]] += (values[place + 1] - values[place - 1]) / (values[-1] - values[0])
    return distances


def non_dominated(
    candidates: Iterable[Candidate], objectives: Sequence[SearchObjective]
) -> tuple[Candidate, ...]:
    """The candidates that no other dominates, in order of the objectives; of equals all are.

    Those of which an objective is not known are left out.
    """
    placed = [(point, c) for c in candidates if (point := point_of(c, objectives)) is not None]
    best = fronts([point for point, _ in placed])[:1]
    return tuple(placed[index][1] for of_rank in best for index in of_rank)


def best_spread(
    candidates: Iterable[Candidate], objectives: Sequence[SearchObjective], count: int
) -> list[Candidate]:
    """The best `count`: earlier fronts first, and within a front the least crowded first.

    This is the order by which NSGA-II keeps and breeds. Candidates of which an objective is not known are
    left out; of equals the first given comes first.
    """
    placed = [(point, c) for c in candidates if (point := point_of(c, objectives)) is not None]
    points = [point for point, _ in placed]
    ranked: list[Candidate] = []
    for of_rank in fronts(points):
        if len(ranked) >= count:
            break
        distances = crowding_distances([points[index] for index in of_rank])
        by_distance = sorted(zip(distances, of_rank, strict=True), key=lambda pair: -pair[0])
        ranked += [placed[index][1] for _, index in by_distance]
    return ranked[:count]


def neighbours(
    picked: Candidate, candidates: Iterable[Candidate], cost: SearchObjective
) -> tuple[Candidate | None, Candidate | None]:
    """Beside a scored candidate on the front of score and one cost: the next cheaper, and the next better.

    The next cheaper is the best of those that cost less; the next better costs least of those with a better
    score. None where there is none.

    Args:
        cost: known of `picked`.
    """
    along = front(candidates, cost.name, larger_is_better=cost.larger_is_better)
    sign = -1 if cost.larger_is_better else 1
    cheaper = [c for c in along if sign * c.costs[cost.name] < sign * picked.costs[cost.name]]
    better = [c for c in along if score_of(c) < score_of(picked)]
    return cheaper[-1] if cheaper else None, better[0] if better else None
