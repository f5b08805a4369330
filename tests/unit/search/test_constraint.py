"""Constraints from a recipe, and what breaks them."""

import math

import pytest

from automoe.errors import InputError
from automoe.search.constraint import COSTS, Constraint, parse_constraints, violations


def test_bounds_of_a_recipe_become_constraints_in_order():
    parsed = parse_constraints({"latency_ms": 120, "flops": 2e9})
    assert parsed == (Constraint("latency_ms", 120.0), Constraint("flops", 2e9))
    assert parse_constraints({}) == ()
    assert len(parse_constraints(dict.fromkeys(COSTS, 1))) == 5


def test_every_problem_of_a_recipe_is_listed():
    bounds = {"latncy_ms": 120, "flops": 0, "parameters": -1, "memory_bytes": True, "latency_ms": math.nan}
    with pytest.raises(InputError) as caught:
        parse_constraints(bounds)
    assert len(caught.value.problems) == 5
    for cost, problem in zip(bounds, caught.value.problems, strict=True):
        assert problem.startswith(f"{cost}: ")
    assert "known: latency_ms, flops" in caught.value.problems[0]


def test_a_number_that_yaml_reads_as_text_is_explained():
    with pytest.raises(InputError, match=r"2\.0e\+9"):
        parse_constraints({"flops": "2e9"})


@pytest.mark.parametrize("maximum", [0, -3.5, math.inf, None, "12", False])
def test_a_constraint_is_never_built_with_an_impossible_bound(maximum):
    with pytest.raises(InputError):
        Constraint("flops", maximum)


def test_violations_are_those_whose_known_cost_exceeds_the_bound():
    latency, flops, parameters = constraints = parse_constraints(
        {"latency_ms": 10, "flops": 100, "parameters": 5}
    )
    assert violations(constraints, {"latency_ms": 10, "flops": 100, "parameters": 5}) == ()
    assert violations(constraints, {"latency_ms": 10.1, "flops": 99, "parameters": 6}) == (
        latency,
        parameters,
    )
    assert violations(constraints, {"flops": 101}) == (flops,)
    assert violations((), {"flops": 1e30}) == ()


def test_a_cost_that_was_not_computed_is_not_taken_for_a_kept_bound():
    with pytest.raises(KeyError):
        Constraint("latency_ms", 10).holds({"flops": 1})
