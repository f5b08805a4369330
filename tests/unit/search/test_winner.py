"""The end of a search under a latency budget: who is measured, and who may race."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.errors import InputError, validate_plain
from automoe.search.candidate import Candidate
from automoe.search.winner import MOST_TRIES, AgainstBound, Measured, measured_finalists
from helpers.toy_space import Counted, ToySpace

MEMBERS = random.Random(0).sample(list(ToySpace().members()), 40)
BOUND_MS = 10.0


def candidate(index: int) -> Candidate:
    """Scores fall with the index: the last is the best."""
    return Candidate(MEMBERS[index], {"latency_ms": 9.0 + index / 100}, score=-float(index))


def measured(latencies: dict[int, float], otherwise: float = 1.0) -> Counted:
    by_member = {MEMBERS[index]: latency for index, latency in latencies.items()}
    return Counted(lambda architecture: Measured(by_member.get(architecture, otherwise), BOUND_MS))


def best(count: int):
    """Chooses the best `count`, of equals the first given."""
    return lambda pool: sorted(pool, key=lambda candidate: candidate.score)[:count]


@pytest.mark.parametrize("slow", [[], [7], [7, 6], [7, 5], [6], [0, 7, 6, 5, 4, 3, 2]])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_best_that_keep_the_budget_are_finalists_and_no_worse_one_is_measured(slow, count):
    candidates = [candidate(index) for index in range(8)]
    random.Random(1).shuffle(candidates)
    measure = measured(dict.fromkeys(slow, 10.5))
    finalists = measured_finalists(candidates, best(count), measure)
    expected = [index for index in range(7, -1, -1) if index not in slow][:count]
    assert [trial.candidate for trial in finalists.kept] == [candidate(index) for index in expected]
    assert {trial.measured for trial in finalists.kept} == {Measured(1.0, BOUND_MS)}
    looked_at = list(range(7, -1 if len(expected) < count else expected[-1] - 1, -1))
    rejected = [index for index in looked_at if index in slow]
    assert [trial.candidate for trial in finalists.rejected] == [candidate(index) for index in rejected]
    assert {trial.measured for trial in finalists.rejected} <= {Measured(10.5, BOUND_MS)}
    assert measure.calls == [MEMBERS[index] for index in looked_at]


def test_a_rejected_one_is_replaced_by_whom_the_choice_then_takes():
    """The choice of the moment, one of each parity, is asked again without those that broke the budget."""

    def one_even_one_odd(pool):
        parts = [[c for c in pool if MEMBERS.index(c.architecture) % 2 == parity] for parity in (0, 1)]
        return [best(1)(part)[0] for part in parts if part]

    finalists = measured_finalists(
        [*map(candidate, range(6))], one_even_one_odd, measured({4: 11.0, 2: 11.0})
    )
    assert [trial.candidate for trial in finalists.kept] == [candidate(0), candidate(5)]
    assert [trial.candidate for trial in finalists.rejected] == [candidate(4), candidate(2)]


def test_without_a_bound_on_a_measured_cost_nothing_is_measured():
    candidates = [Candidate(member, {"flops": 1.0}, float(place)) for place, member in enumerate(MEMBERS[:4])]
    finalists = measured_finalists(candidates, best(2), None)
    assert [trial.candidate for trial in finalists.kept] == candidates[:2]
    assert [str(trial) for trial in finalists.kept] == [
        f"{place}.000 with {MEMBERS[place]}" for place in (0, 1)
    ]
    assert finalists.rejected == ()


def test_a_latency_of_exactly_the_budget_keeps_it():
    assert measured_finalists([candidate(0)], best(1), measured({0: BOUND_MS})).rejected == ()


@pytest.mark.parametrize("keep", [[0], [21, 22, 4], [24]])
def test_no_more_than_so_many_are_measured_and_those_that_hold_among_them_are_finalists(keep):
    """Of 25 candidates, the best five are wanted; the tries end before those below are looked at."""
    candidates = [candidate(index) for index in range(25)]
    measure = measured(dict.fromkeys(keep, 1.0), otherwise=11.0)
    holding = [index for index in sorted(keep, reverse=True) if index >= 25 - MOST_TRIES]
    if not holding:
        with pytest.raises(InputError, match=f"none of the {MOST_TRIES} best"):
            measured_finalists(candidates, best(5), measure)
    else:
        finalists = measured_finalists(candidates, best(5), measure)
        assert [trial.candidate for trial in finalists.kept] == [candidate(index) for index in holding]
        assert len(finalists.rejected) == MOST_TRIES - len(holding)
    assert measure.calls == [MEMBERS[index] for index in range(24, 24 - MOST_TRIES, -1)]


def test_one_that_keeps_it_is_a_finalist_even_if_the_last_choice_passes_it_over():
    """All others break it, and the choice leaves the first one alone once the second was rejected."""
    candidates = [candidate(index) for index in range(25)]
    measure = measured({0: 1.0}, otherwise=11.0)
    finalists = measured_finalists(
        candidates, lambda pool: pool[:2] if len(pool) == 25 else pool[-2:], measure
    )
    assert len(measure.calls) == MOST_TRIES
    assert [trial.candidate for trial in finalists.kept] == [candidate(0)]


@pytest.mark.parametrize("from_below", [False, True])
def test_when_all_predictions_err_alike_the_best_that_keep_the_budget_are_found_at_once(from_below):
    """The nearer to the bound, the better the score: of 40 the best 23 break it by up to 3 %."""
    cost = "throughput_sentences_s" if from_below else "latency_ms"
    predicted = [BOUND_MS * (0.95 + index / 800) for index in range(40)]
    if from_below:
        predicted = [BOUND_MS**2 / value for value in predicted]
    candidates = [
        Candidate(member, {cost: value}, -float(index))
        for index, (member, value) in enumerate(zip(MEMBERS, predicted, strict=True))
    ]
    share = {
        member: (value / 1.03 if from_below else value * 1.03) / BOUND_MS
        for member, value in zip(MEMBERS, predicted, strict=True)
    }
    keep = [
        c for c in candidates if (share[c.architecture] >= 1 if from_below else share[c.architecture] <= 1)
    ]
    assert len(candidates) - len(keep) > MOST_TRIES

    def figure(architecture):
        if from_below:
            figures = (AgainstBound(cost, 50 * share[architecture], 50.0),)
            return Measured(1.0, None, broken=("too slow",) * (share[architecture] < 1), figures=figures)
        return Measured(12 * share[architecture], 12.0)

    measure = Counted(figure)
    finalists = measured_finalists(candidates, best(4), measure, [cost] if from_below else [])
    assert [trial.candidate for trial in finalists.kept] == best(4)(keep)
    assert len(measure.calls) == 8


@pytest.mark.parametrize("lucky", [False, True])
def test_the_few_that_should_keep_it_are_measured_before_many_that_should_not(lucky):
    """Predictions are 3 % too low: of 40 the worst three alone keep the budget, and a lucky one."""
    candidates = [
        Candidate(member, {"latency_ms": 9.0 if index >= 37 else 9.9}, float(index))
        for index, member in enumerate(MEMBERS)
    ]
    too_low = {c.architecture: 1.03 * c.costs["latency_ms"] for c in candidates}
    if lucky:
        too_low[MEMBERS[12]] = 9.99
    measure = Counted(lambda architecture: Measured(too_low[architecture], BOUND_MS))
    finalists = measured_finalists(candidates, best(4), measure)
    expected = [candidates[index] for index in ([12] if lucky else []) + [37, 38, 39]]
    assert [trial.candidate for trial in finalists.kept] == expected
    assert set(MEMBERS[37:]) < set(measure.calls[:12])


@given(st.data())
@settings(max_examples=200)
def test_any_choice_gets_what_keeps_the_budget(data):
    """Whoever is chosen next: each is asked once, kept ones hold, and none is an error only if none holds."""
    candidates = [candidate(index) for index in range(data.draw(st.integers(1, 30)))]
    slow = data.draw(st.sets(st.sampled_from(candidates).map(lambda c: MEMBERS.index(c.architecture))))
    count, seed = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 99))

    def choose(pool):
        """Some of the pool, by what is in it."""
        return random.Random(f"{seed} {len(pool)}").sample(list(pool), min(count, len(pool)))

    measure = measured(dict.fromkeys(slow, 11.0))
    try:
        finalists = measured_finalists(candidates, choose, measure)
    except InputError:
        assert {MEMBERS.index(architecture) for architecture in measure.calls} <= slow
        assert len(measure.calls) == min(MOST_TRIES, len(candidates))
    else:
        assert finalists.kept
        assert all(trial.measured == Measured(1.0, BOUND_MS) for trial in finalists.kept)
        rejected = [a for a in measure.calls if MEMBERS.index(a) in slow]
        assert [trial.candidate.architecture for trial in finalists.rejected] == rejected
    assert len(set(measure.calls)) == len(measure.calls) <= MOST_TRIES


def test_when_none_keeps_it_the_error_names_every_figure():
    candidates = [candidate(index) for index in range(MOST_TRIES + 5)]
    measure = Counted(
        lambda architecture: Measured(12.34, BOUND_MS, reference_ms=13.3, noise="the machine was too busy")
    )
    with pytest.raises(InputError, match=f"none of the {MOST_TRIES} best") as caught:
        measured_finalists(candidates, best(4), measure)
    assert len(measure.calls) == MOST_TRIES
    *trials, noise, mend = caught.value.problems
    assert len(trials) == MOST_TRIES
    assert all(str(member) in line for member, line in zip(measure.calls, trials, strict=True))
    assert trials[0].endswith("predicted 9.24 ms, measured 12.34 ms, allowed 10 ms")
    assert noise == "the machine was too busy"
    assert "raise the bound on latency_ms" in mend


def test_a_budget_of_another_device_is_not_judged_here():
    measure = Counted(lambda architecture: Measured(1e6, maximum_ms=None))
    finalists = measured_finalists([candidate(0), candidate(1)], best(1), measure)
    assert [trial.candidate for trial in finalists.kept] == [candidate(1)]
    assert measure.calls == [MEMBERS[1]]


def test_another_measured_bound_that_is_broken_decides_too():
    slow = "throughput 90 sentences/s, at least 100 asked for"

    def measure(architecture):
        return Measured(9.0, BOUND_MS, broken=(slow,) if architecture == MEMBERS[1] else ())

    finalists = measured_finalists([candidate(0), candidate(1)], best(1), measure)
    assert [trial.candidate for trial in finalists.kept] == [candidate(0)]
    (rejected,) = finalists.rejected
    assert rejected.candidate == candidate(1)
    assert str(rejected).endswith(f"measured 9 ms, allowed 10 ms, {slow}")
    with pytest.raises(InputError, match=slow) as caught:
        measured_finalists([candidate(1)], best(1), measure)
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
        measured_finalists([candidate(0)], best(1), lambda architecture: broken)
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
