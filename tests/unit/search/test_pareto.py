"""Fronts, crowding and neighbours, beside what comparing all pairs says."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.search.candidate import Candidate
from automoe.search.pareto import (
    SearchObjective,
    best_spread,
    crowding_distances,
    fronts,
    neighbours,
    non_dominated,
    point_of,
)
from helpers.toy_space import ToySpace

ARCHITECTURE = ToySpace().smallest()
POINTS = st.integers(1, 3).flatmap(
    lambda size: st.lists(st.tuples(*[st.integers(0, 4)] * size), min_size=1, max_size=14)
)
LOSS_AND_COST = (SearchObjective("loss"), SearchObjective("flops"))


def beats(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def peeled(points):
    """The definition: take away what nothing left beats, again and again."""
    left, found = set(range(len(points))), []
    while left:
        best = {i for i in left if not any(beats(points[j], points[i]) for j in left)}
        found.append(best)
        left -= best
    return found


def crowding(points, index):
    """The definition, for points whose values all differ: the box between a point's neighbours."""
    total = 0.0
    for values in zip(*points, strict=True):
        below = [v for v in values if v < values[index]]
        above = [v for v in values if v > values[index]]
        if not below or not above:
            return math.inf
        total += (min(above) - max(below)) / (max(values) - min(values))
    return total


def candidates(points):
    return [Candidate(ARCHITECTURE, {"flops": cost}, score) for score, cost in points]


@settings(max_examples=200)
@given(POINTS)
def test_fronts_are_what_peeling_leaves(points):
    found = fronts(points)
    assert [set(front) for front in found] == peeled(points)
    assert sum(map(len, found)) == len(points)
    for front in found:
        assert [points[i] for i in front] == sorted(points[i] for i in front)


@settings(max_examples=200)
@given(st.data(), st.integers(1, 8), st.integers(1, 3))
def test_crowding_is_the_box_between_neighbours(data, count, objectives):
    columns = [
        data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count, unique=True))
        for _ in range(objectives)
    ]
    points = [tuple(map(float, point)) for point in zip(*columns, strict=True)]
    found = crowding_distances(points)
    # A single point has no range: it is not crowded, and there is nothing to compare it with.
    expected = [crowding(points, index) if count > 1 else 0.0 for index in range(count)]
    assert all(math.isclose(a, b) for a, b in zip(found, expected, strict=True))


def test_crowding_of_equals_and_of_no_points():
    assert crowding_distances([]) == []
    assert crowding_distances([(1.0, 2.0)] * 3) == [0.0, 0.0, 0.0]
    assert crowding_distances([(0.0, 1.0), (1.0, 1.0), (4.0, 1.0)]) == [math.inf, 1.0, math.inf]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=14, unique=True))
def test_the_best_are_of_earlier_fronts_and_the_least_crowded_of_the_last(points):
    ranked = best_spread(candidates(points), LOSS_AND_COST, len(points))
    order = [(c.score, c.costs["flops"]) for c in ranked]
    assert sorted(order) == sorted(points)
    layers = peeled(points)
    rank = {points[i]: number for number, layer in enumerate(layers) for i in layer}
    assert [rank[p] for p in order] == sorted(rank[p] for p in order)
    for layer in layers:
        members = [p for p in order if p in {points[i] for i in layer}]
        distances = crowding_distances(members)
        assert distances == sorted(distances, reverse=True)
    for count in range(len(points)):
        assert best_spread(candidates(points), LOSS_AND_COST, count) == ranked[:count]


def test_what_is_better_when_larger_and_what_is_not_known():
    objectives = (SearchObjective("loss"), SearchObjective("throughput_sentences_s", larger_is_better=True))
    fast = Candidate(ARCHITECTURE, {"throughput_sentences_s": 9.0}, 3.0)
    slow = Candidate(ARCHITECTURE, {"throughput_sentences_s": 8.0}, 3.0)
    unknown, unscored = Candidate(ARCHITECTURE, {}, 1.0), Candidate(ARCHITECTURE, fast.costs)
    assert point_of(fast, objectives) == (3.0, -9.0)
    assert point_of(unknown, objectives) is None
    assert point_of(unscored, objectives) is None
    assert non_dominated([unknown, slow, fast, unscored], objectives) == (fast,)
    assert best_spread([unknown, slow, fast, unscored], objectives, 9) == [fast, slow]
    assert non_dominated([unknown], objectives) == ()


def test_neighbours_on_the_front_are_the_next_cheaper_and_the_next_better():
    a, b, c, beaten = candidates([(5, 1), (4, 2), (3, 7), (4, 3)])
    flops = SearchObjective("flops")
    assert neighbours(b, [c, beaten, b, a], flops) == (a, c)
    assert neighbours(a, [a, b, c], flops) == (None, b)
    assert neighbours(c, [a, b, c], flops) == (b, None)
    # One that is not on the front itself: b is as good and cheaper.
    assert neighbours(beaten, [a, b, c, beaten], flops) == (b, c)
    fast = SearchObjective("flops", larger_is_better=True)
    assert neighbours(beaten, candidates([(5, 9), (2, 1)]), fast) == (
        Candidate(ARCHITECTURE, {"flops": 9}, 5),
        Candidate(ARCHITECTURE, {"flops": 1}, 2),
    )
