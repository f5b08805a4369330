"""The table of costs: what its rows say of an architecture, and bounds on them."""

import dataclasses
import math

import pytest

from automoe.cost.costs import (
    COSTS,
    Conditions,
    check_bounds,
    constraints_of,
    measured_names,
    prices,
    share_of,
)
from automoe.cost.counting import count
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import dense
from automoe.errors import InputError

SMALL = dense(16, 32, 2, 2, 1)
PROTOCOL = MeasuringProtocol(source_length=7, target_length=9, vocabulary_size=50, beam_size=3, norm="pre")


def test_counted_costs_are_what_is_counted_under_the_protocol():
    priced = prices(Conditions(PROTOCOL))
    counts = dataclasses.asdict(count(SMALL, PROTOCOL))
    assert {name: price.of(SMALL) for name, price in priced.items()} == {
        name: counts[name] for name in ("flops", "parameters", "active_parameters", "memory_bytes")
    }
    assert not any(price.measured for price in priced.values())


def test_measured_costs_follow_from_the_latency_and_the_batch():
    conditions = Conditions(dataclasses.replace(PROTOCOL, batch=8), lambda architecture: 40.0)
    priced = prices(conditions, ["latency_ms", "throughput_sentences_s"])
    assert priced["latency_ms"].of(SMALL) == 40
    assert priced["throughput_sentences_s"].of(SMALL) == 200  # 8 sentences in 0.04 s
    assert {name for name, price in priced.items() if price.measured} == {
        "latency_ms",
        "throughput_sentences_s",
    }


def test_without_a_source_a_latency_is_refused():
    with pytest.raises(InputError, match="no source"):
        prices(Conditions(PROTOCOL), ["latency_ms"])["latency_ms"].of(SMALL)


def test_a_bound_is_from_above_or_from_below_as_the_cost_says():
    flops, throughput = constraints_of({"flops": 10, "throughput_sentences_s": 100})
    assert flops.holds({"flops": 10})
    assert not flops.holds({"flops": 11})
    assert throughput.holds({"throughput_sentences_s": 100})
    assert not throughput.holds({"throughput_sentences_s": 99})
    assert share_of("75%") == 0.75
    assert share_of(75.0) is None
    assert measured_names(COSTS) == ("latency_ms", "throughput_sentences_s")


def test_every_problem_of_the_bounds_is_listed():
    bounds = {"latncy_ms": 120, "flops": 0, "parameters": -1, "memory_bytes": math.nan, "latency_ms": "0%"}
    with pytest.raises(InputError) as caught:
        check_bounds(bounds)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == list(bounds)
    assert "known: latency_ms, throughput_sentences_s, flops" in caught.value.problems[0]
    check_bounds(dict.fromkeys(COSTS, 1) | {"flops": "60%"})
