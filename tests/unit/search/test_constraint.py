"""Constraints from a recipe, and what breaks them."""

import math

import pytest

from automoe.errors import InputError
from automoe.search.constraint import Constraint, parse_constraints, violations

LARGER_IS_BETTER = {
    "latency_ms": False,
    "flops": False,
    "parameters": False,
    "memory_bytes": False,
    "throughput_sentences_s": True,
}


def test_bounds_of_a_recipe_become_constraints_in_order():
    bounds = {"latency_ms": 120, "throughput_sentences_s": 100, "flops": 2e9}
    parsed = parse_constraints(bounds, LARGER_IS_BETTER)
    assert parsed == (
        Constraint("latency_ms", 120.0),
        Constraint("throughput_sentences_s", 100.0, at_least=True),
        Constraint("flops", 2e9),
    )
    assert [str(constraint) for constraint in parsed] == [
        "latency_ms <= 120", "throughput_sentences_s >= 100", "flops <= 2e+09",
    ]  # fmt: skip
    assert all(isinstance(constraint.bound, float) for constraint in parsed)
    assert parse_constraints({}, LARGER_IS_BETTER) == ()
    assert len(parse_constraints(dict.fromkeys(LARGER_IS_BETTER, 1), LARGER_IS_BETTER)) == 5


def test_every_problem_of_a_recipe_is_listed():
    bounds = {"latncy_ms": 120, "flops": 0, "parameters": -1, "memory_bytes": True, "latency_ms": math.nan}
    with pytest.raises(InputError) as caught:
        parse_constraints(bounds, LARGER_IS_BETTER)
    assert len(caught.value.problems) == 5
    for cost, problem in zip(bounds, caught.value.problems, strict=True):
        assert problem.startswith(f"{cost}: ")
    assert "known: latency_ms, flops" in caught.value.problems[0]


def test_a_number_as_text_is_refused():
    with pytest.raises(InputError, match="flops: expected a number, got '2e9'"):
        parse_constraints({"flops": "2e9"}, LARGER_IS_BETTER)


@pytest.mark.parametrize("at_least", [False, True])
@pytest.mark.parametrize("bound", [0, -3.5, math.inf, math.nan, None, "12", False])
def test_a_constraint_is_never_built_with_an_impossible_bound(bound, at_least):
    with pytest.raises(InputError, match="bound: "):
        Constraint("flops", bound, at_least)


def test_violations_are_those_whose_known_cost_exceeds_the_bound():
    latency, flops, parameters = constraints = parse_constraints(
        {"latency_ms": 10, "flops": 100, "parameters": 5}, LARGER_IS_BETTER
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


@pytest.mark.parametrize(
    ("throughput", "holds", "ratio"),
    [(100, True, 1), (200, True, 0.5), (99, False, 100 / 99), (0, False, math.inf)],
)
def test_a_bound_from_below_is_kept_by_what_is_at_least_it(throughput, holds, ratio):
    constraint = Constraint("throughput_sentences_s", 100, at_least=True)
    costs = {"throughput_sentences_s": throughput}
    assert constraint.holds(costs) == holds
    assert violations([constraint], costs) == (() if holds else (constraint,))
    assert constraint.ratio(costs) == ratio


@pytest.mark.parametrize("at_least", [False, True])
@pytest.mark.parametrize("value", [1, 9.5, 10, 10.5, 1000])
def test_the_ratio_is_at_most_one_exactly_when_the_bound_is_kept(value, at_least):
    constraint = Constraint("flops", 10, at_least)
    assert (constraint.ratio({"flops": value}) <= 1) == constraint.holds({"flops": value})
