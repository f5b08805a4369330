"""What a run's report says beside its table and pictures."""

import pytest

from automoe.report.run_report import budget_note

OLD = {"latency_ms": 5.12, "maximum_ms": None, "reference_ms": None, "noise": None, "broken": []}
THROUGHPUT = "throughput_sentences_s"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (OLD, "5.1 measured here, which is not the device of the budget."),
        (OLD | {"maximum_ms": 6.0}, "5.1 measured, 6.0 allowed."),
        (OLD | {"maximum_ms": 6.0, "bounded": ["latency_ms"]}, "5.1 measured, 6.0 allowed."),
        (OLD | {"bounded": [THROUGHPUT]}, f"5.1 measured; the bound on {THROUGHPUT} is kept."),
        (
            OLD | {"maximum_ms": 6.0, "bounded": ["latency_ms", THROUGHPUT], "noise": "busy"},
            f"5.1 measured, 6.0 allowed; the bound on {THROUGHPUT} is kept; busy.",
        ),
    ],
)
def test_a_note_says_which_bounds_the_choice_keeps(measured, expected) -> None:
    note = budget_note("hat", {"predicted_latency_ms": 4.96, "measured": measured, "rejected": []})
    assert note == f"hat: at the end of the search, 5.0 ms were predicted, {expected}"
