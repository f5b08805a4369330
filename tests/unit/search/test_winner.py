"""The end of a search under a latency budget: who is measured, and who wins."""

import random

import pytest

from automoe.errors import InputError, validate_plain
from automoe.search.candidate import Candidate
from automoe.search.winner import MOST_TRIES, Measured, measured_winner
from helpers import toy_space
from helpers.toy_space import Counted, ToySpace

MEMBERS = random.Random(0).sample(list(ToySpace().members()), 40)
BOUND_MS = 10.0


def candidate(index: int) -> Candidate:
    """Scores fall with the index: the last is the best."""
    return Candidate(MEMBERS[index], {"latency_ms": 9.0 + index / 100}, score=-float(index))


def measured(latencies: dict[int, float], otherwise: float = 1.0) -> Counted:
    by_member = {MEMBERS[index]: latency for index, latency in latencies.items()}
    return Counted(lambda architecture: Measured(by_member.get(architecture, otherwise), BOUND_MS))


@pytest.mark.parametrize("slow", [[], [7], [7, 6], [7, 5], [0, 7, 6, 5, 4, 3, 2]])
def test_the_best_that_keeps_the_budget_wins_and_no_worse_one_is_measured(slow):
    candidates = [candidate(index) for index in range(8)]
    random.Random(1).shuffle(candidates)
    measure = measured(dict.fromkeys(slow, 10.5))
    winner = measured_winner(candidates, measure)
    expected = max(index for index in range(8) if index not in slow)
    assert winner.trial.candidate == candidate(expected)
    assert winner.trial.measured == Measured(1.0, BOUND_MS)
    assert [trial.candidate for trial in winner.rejected] == [candidate(i) for i in range(7, expected, -1)]
    assert measure.calls == [MEMBERS[index] for index in range(7, expected - 1, -1)]


def test_a_latency_of_exactly_the_budget_keeps_it():
    assert measured_winner([candidate(0)], measured({0: BOUND_MS})).rejected == ()


def test_of_equal_scores_the_first_given_is_measured_first():
    equals = [Candidate(MEMBERS[index], {"latency_ms": 9.0}, 1.0) for index in (3, 1, 2)]
    assert measured_winner(equals, measured({})).trial.candidate == equals[0]


def test_when_none_keeps_it_the_error_names_every_figure_and_the_tries_are_bounded():
    candidates = [candidate(index) for index in range(MOST_TRIES + 5)]
    measure = Counted(
        lambda architecture: Measured(12.34, BOUND_MS, reference_ms=13.3, noise="the machine was too busy")
    )
    with pytest.raises(InputError, match=f"none of the {MOST_TRIES} best") as caught:
        measured_winner(candidates, measure)
    assert len(measure.calls) == MOST_TRIES
    *trials, noise, mend = caught.value.problems
    assert [str(member) in line for member, line in zip(measure.calls, trials, strict=True)] == [
        True
    ] * MOST_TRIES
    assert trials[0].endswith("predicted 9.24 ms, measured 12.34 ms, allowed 10 ms")
    assert noise == "the machine was too busy"
    assert "search.constraints.latency_ms" in mend


def test_an_unscored_candidate_is_a_mistake():
    with pytest.raises(ValueError, match="was not scored"):
        measured_winner([Candidate(toy_space.ToySpace().smallest(), {"latency_ms": 1.0})], measured({}))


def test_a_budget_of_another_device_is_not_judged_here():
    measure = Counted(lambda architecture: Measured(1e6, maximum_ms=None))
    winner = measured_winner([candidate(0), candidate(1)], measure)
    assert winner.trial.candidate == candidate(1)
    assert measure.calls == [MEMBERS[1]]


def test_another_measured_bound_that_is_broken_decides_too():
    slow = "throughput 90 sentences/s, at least 100 asked for"

    def measure(architecture):
        return Measured(9.0, BOUND_MS, broken=(slow,) if architecture == MEMBERS[1] else ())

    winner = measured_winner([candidate(0), candidate(1)], measure)
    assert winner.trial.candidate == candidate(0)
    (rejected,) = winner.rejected
    assert rejected.candidate == candidate(1)
    assert str(rejected).endswith(f"measured 9 ms, allowed 10 ms, {slow}")
    with pytest.raises(InputError, match=slow) as caught:
        measured_winner([candidate(1)], measure)
    assert "relax the other bounds" in caught.value.problems[-1]
    assert not Measured(9.0, maximum_ms=None, broken=(slow,)).holds


def test_what_was_measured_says_which_bounds_were_judged_and_never_that_of_a_cost_without_one():
    throughput = ("throughput_sentences_s",)
    assert str(Measured(5.0, None)) == "measured 5 ms, on another device"
    kept = "measured 5 ms, keeps the bound on throughput_sentences_s"
    assert str(Measured(5.0, None, bounded=throughput)) == kept
    assert str(Measured(5.0, None, reference_ms=6.0, bounded=throughput)) == kept
    assert str(Measured(5.0, 7.0, bounded=("latency_ms",))) == "measured 5 ms, allowed 7 ms"
    slow = "throughput_sentences_s >= 210, but it is 200 sentences/s"
    broken = Measured(5.0, None, broken=(slow,), bounded=throughput)
    assert str(broken) == f"measured 5 ms, {slow}"
    with pytest.raises(InputError, match="keeps the budget when it is measured") as caught:
        measured_winner([candidate(0)], lambda architecture: broken)
    assert "latency_ms" not in caught.value.problems[-1]
    assert "(throughput_sentences_s)" in caught.value.problems[-1]


@pytest.mark.parametrize(
    ("record", "judged"),
    [
        ({"latency_ms": 5.0, "maximum_ms": None, "reference_ms": None, "noise": None}, False),
        ({"latency_ms": 5.0, "maximum_ms": 6.0, "reference_ms": None, "noise": None, "broken": []}, True),
        ({"latency_ms": 5.0, "maximum_ms": None, "reference_ms": 6.0, "noise": None, "broken": []}, True),
        ({"latency_ms": 5.0, "maximum_ms": None, "reference_ms": None, "broken": ["too slow"]}, True),
    ],
)
def test_records_of_older_versions_which_name_no_bounds_tell_by_their_figures_if_they_were_judged(
    record, judged
):
    assert validate_plain(Measured, record, "damaged").judged is judged
