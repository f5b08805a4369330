"""What a report says that a run did not reach."""

from dataclasses import replace

import pytest

from automoe.design.architecture import dense
from automoe.report.shortfalls import shortfalls
from automoe.report.tables import Result
from automoe.search.constraint import Constraint
from helpers.made_up_report import ASKED, made_up_result, made_up_seed

DENSE = dense(16, 32, 2, 2, 1)
ELSEWHERE = {"latency_ms": 5.0, "maximum_ms": None, "reference_ms": None, "noise": None, "broken": []}
HERE = ELSEWHERE | {"maximum_ms": 4.0, "reference_ms": 10.0, "bounded": ["latency_ms"]}


def told(tmp_path, costs, constraints, shares=None, measured=HERE, p=0.01) -> list[str]:
    """Of a searched system with these costs, beside a baseline of 10 ms and 1 GFLOP."""
    report = made_up_seed(
        {"mine": made_up_result(DENSE), "base": made_up_result(DENSE)},
        p={("base", "mine"): p},
        log=tmp_path / "candidates.jsonl",
        candidates=[(DENSE, 1.0)],
        measured=measured,
    )
    rows = {
        "mine": Result("mine", costs=costs),
        "base": Result("base", costs={"latency_ms": 10.0, "throughput_sentences_s": 100.0, "flops": 1e9}),
    }
    asked = replace(ASKED, budgets={"mine": constraints}, shares={"mine": shares or {}})
    found = shortfalls(report, rows, "base", asked)
    return [text for text in found if "capacity" not in text]


LATENCY = Constraint("latency_ms", 4.5)


@pytest.mark.parametrize(
    ("latency_ms", "shares", "expected"),
    [
        (4.4, {}, []),
        (4.6, {}, ["mine breaks its budget: latency (ms) 4.6, at most 4.5 was asked for."]),
        # 4.5 was predicted; of the baseline as it was measured, 40 % are 4.0.
        (
            4.4,
            {"latency_ms": 0.4},
            ["mine breaks its budget: latency (ms) 4.4, at most 4.0 (40% of what base has) was asked for."],
        ),
        (3.9, {"latency_ms": 0.4}, []),
        (4.9, {"latency_ms": 0.5}, []),
    ],
)
def test_a_latency_is_judged_as_measured_at_the_end(tmp_path, latency_ms, shares, expected):
    assert told(tmp_path, {"latency_ms": latency_ms}, [LATENCY], shares) == expected


def test_the_latency_of_another_device_is_not_judged_here(tmp_path):
    costs = {"latency_ms": 50.0, "flops": 2e9}
    constraints = [LATENCY, Constraint("flops", 1e9)]
    assert told(tmp_path, costs, constraints, measured=ELSEWHERE) == [
        "mine breaks its budget: GFLOPs 2, at most 1 was asked for."
    ]


def test_a_throughput_is_a_bound_from_below(tmp_path):
    constraint = Constraint("throughput_sentences_s", 90.0, at_least=True)
    for value, expected in (
        (60.0, []),
        (40.0, ["40.0, at least 50.0 (50% of what base has) was asked for."]),
    ):
        found = told(
            tmp_path, {"throughput_sentences_s": value}, [constraint], {"throughput_sentences_s": 0.5}
        )
        assert [text.removeprefix("mine breaks its budget: sentences/s ") for text in found] == expected


@pytest.mark.parametrize(("p", "expected"), [(0.04, 0), (0.05, 0), (0.051, 1), (1.0, 1)])
def test_what_the_choice_of_sentences_may_explain_is_told(tmp_path, p, expected):
    found = told(tmp_path, {}, [], p=p)
    assert len(found) == expected
    assert all("mine does not differ significantly from base" in text for text in found)
