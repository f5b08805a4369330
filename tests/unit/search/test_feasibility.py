"""The check before a search, with bounds from below; those from above are seen in test_evolution.py."""

import random

import pytest

from automoe.errors import InputError
from automoe.search.constraint import Constraint
from automoe.search.evaluator import Price
from automoe.search.feasibility import check_feasible
from automoe.search.log import CandidateLog, SearchName
from helpers import toy_space
from helpers.toy_space import ToySpace


def throughput(a):
    return 1000 / toy_space.latency_ms(a)


PRICES = {"flops": Price(toy_space.flops), "throughput_sentences_s": Price(throughput, measured=True)}


def at_least(bound):
    return Constraint("throughput_sentences_s", bound, at_least=True)


def test_a_member_above_a_bound_from_below_is_found_and_logged(tmp_path):
    log = CandidateLog(tmp_path / "candidates.jsonl")
    slowest_wanted = throughput(ToySpace().smallest())
    found = check_feasible(ToySpace(), [at_least(slowest_wanted)], PRICES, random.Random(0), log, "dense")
    assert found == ToySpace().smallest()
    (entry,) = log.entries
    assert entry.search == SearchName("feasibility", "feasibility", "dense")
    assert entry.candidate.costs == {name: price.of(found) for name, price in PRICES.items()}


def test_the_nearest_to_a_bound_from_below_is_the_highest(tmp_path):
    fastest = max(map(throughput, ToySpace().members()))
    bounds = [Constraint("flops", 10_000), at_least(2 * fastest)]
    with pytest.raises(InputError, match="no architecture") as caught:
        check_feasible(ToySpace(), bounds, PRICES, random.Random(0), CandidateLog(tmp_path / "c.jsonl"))
    flops_line, throughput_line, mend = caught.value.problems
    assert flops_line.startswith("flops <= 10,000: kept")
    assert throughput_line == (
        f"throughput_sentences_s >= {2 * fastest:,.6g}: broken by the closest, which reaches {fastest:,.6g}; "
        f"highest found {fastest:,.6g}"
    )
    assert "lower those" in mend


def test_the_closest_weighs_bounds_from_both_sides_by_their_ratio(tmp_path):
    """Two members: one breaks a bound from above by half, the other one from below by a third."""
    light, heavy = (toy_space.build([8, 8, 1, size, 1, 8, 1, 8]) for size in (8, 16))

    class Two(ToySpace):
        def smallest(self):
            return light

        def sample(self, rng):
            return heavy

    costs = {light: (90.0, 75.0), heavy: (150.0, 120.0)}
    prices = {
        "flops": Price(lambda a: costs[a][0]), "throughput_sentences_s": Price(lambda a: costs[a][1]),
    }  # fmt: skip
    bounds = [Constraint("flops", 100), at_least(100)]
    with pytest.raises(InputError) as caught:
        check_feasible(Two(), bounds, prices, random.Random(0), CandidateLog(tmp_path / "c.jsonl"))
    assert caught.value.problems[:2] == (
        "flops <= 100: kept by the closest, which needs 90; lowest found 90",
        "throughput_sentences_s >= 100: broken by the closest, which reaches 75; highest found 120",
    )
