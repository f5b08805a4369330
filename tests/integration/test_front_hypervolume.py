"""The benchmark of searches for a front: its hypervolume beside counting cells, and its table."""

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.search.evaluator import Price
from automoe.search.pareto import SearchObjective
from helpers import toy_space
from helpers.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from front_hypervolume import compare, hypervolume, strategies


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=10))
def test_the_hypervolume_is_the_cells_that_a_point_dominates(points):
    cells = [(x, y) for x in range(5) for y in range(6)]  # of side 1, up to the reference
    expected = sum(any(a <= x and b <= y for a, b in points) for x, y in cells)
    assert hypervolume(points, (5, 6)) == expected


def test_every_strategy_is_given_as_many_candidates_and_each_is_scored_once_a_search():
    calls = []

    def score(architecture):
        calls.append(architecture)
        return toy_space.score(architecture)

    prices = {"flops": Price(toy_space.flops)}
    table = compare(toy_space.ToySpace(), prices, score, SearchObjective("flops"), evaluations=40, seeds=1)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == list(
        strategies(40, (SearchObjective("loss"), SearchObjective("flops")))
    )
    assert sum(int(row[1]) for row in rows) == len(calls) <= 120
    assert all(0 < float(row[2]) < 1 for row in rows)


@pytest.mark.parametrize("evaluations", [20, 33, 200, *random.Random(1).sample(range(20, 500), 20)])
def test_any_number_of_evaluations_can_be_asked_for(evaluations):
    """The settings add up, which `strategies` checks itself."""
    assert len(strategies(evaluations, (SearchObjective("loss"), SearchObjective("flops")))) == 3
