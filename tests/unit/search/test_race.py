"""Races of finalists, against a simulation of every step and against figures found by hand."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.errors import InputError
from automoe.search.race import Judged, Rung, plan_rungs, race
from helpers.toy_space import ToySpace

MEMBERS = random.Random(0).sample(list(ToySpace().members()), 16)
INDEX = {architecture: index for index, architecture in enumerate(MEMBERS)}


def judge_of(losses):
    """`losses[i][r]`: of finalist i, after as many judgements of it as r; None when it diverged."""
    told = dict.fromkeys(range(len(losses)), 0)

    def judge(architecture, step):
        index = INDEX[architecture]
        told[index] += 1
        return losses[index][told[index] - 1]

    return judge


def simulated(losses, rungs):
    """(winner or None if all diverged, (finalist, step) as judged): a rank is how many are better."""
    alive, judged = list(range(len(losses))), []
    for number, rung in enumerate(rungs):
        if len(alive) == 1:
            break
        judged += [(index, rung.step) for index in alive]
        value = {i: math.inf if losses[i][number] is None else losses[i][number] for i in alive}
        ranks = {i: sum((value[j], j) < (value[i], i) for j in alive) for i in alive}
        alive = [i for i in alive if 2 * ranks[i] < len(alive) and value[i] < math.inf]
        if not alive:
            return None, judged
    return alive[0], judged


@st.composite
def races(draw, diverging=True):
    number = draw(st.integers(1, 10))
    loss = st.integers(0, 6).map(float)
    one = st.lists(st.none() | loss if diverging else loss, min_size=4, max_size=4)
    return draw(st.lists(one, min_size=number, max_size=number))


@settings(max_examples=300)
@given(losses=races())
def test_a_race_is_what_a_simulation_of_it_gives(losses):
    finalists = MEMBERS[: len(losses)]
    rungs = plan_rungs(len(losses), 1_000, 0.5)
    winner, judged = simulated(losses, rungs)
    heard = []
    if winner is None:
        with pytest.raises(InputError, match="diverged"):
            race(finalists, rungs, judge_of(losses), heard.append)
    else:
        result = race(finalists, rungs, judge_of(losses), heard.append)
        assert result.winner == MEMBERS[winner]
        trained = dict(judged)  # the last step counts
        assert result.lost_steps == sum(trained[i] for i in range(len(losses)) if i != winner)
        assert result.judged == tuple(heard)
    assert [(INDEX[one.architecture], one.step) for one in heard] == judged


@settings(max_examples=100)
@given(order=st.permutations(range(8)))
def test_the_best_wins_when_it_is_the_best_at_every_rung(order):
    rungs = plan_rungs(8, 1_000, 0.6)
    result = race(MEMBERS[:8], rungs, judge_of([[3.0 + rank, 2.0 + rank, 1.0 + rank] for rank in order]))
    assert result.winner == MEMBERS[order.index(0)]
    # The paper's bracket: 4 lose after f, 2 after 2f and 1 after 4f, 12 f of 0.05 * 1,000.
    assert result.lost_steps == 4 * 50 + 2 * 100 + 1 * 200 == 0.6 * 1_000


def test_one_late_in_its_training_can_be_lost_early_and_a_rung_is_judged_as_a_whole():
    rungs = (Rung(10, 4), Rung(20, 2))
    result = race(MEMBERS[:4], rungs, judge_of([[4.0, 0.0], [3.0, 2.0], [2.0, 2.5], [4.5, 0.0]]))
    assert result.winner == MEMBERS[1]
    assert result.judged == (
        Judged(MEMBERS[0], 10, 4.0),
        Judged(MEMBERS[1], 10, 3.0),
        Judged(MEMBERS[2], 10, 2.0),
        Judged(MEMBERS[3], 10, 4.5),
        Judged(MEMBERS[1], 20, 2.0),
        Judged(MEMBERS[2], 20, 2.5),
    )
    assert result.lost_steps == 10 + 10 + 20


def test_of_equals_the_first_given_stays():
    assert race(MEMBERS[:4], plan_rungs(4, 100, 0.5), lambda architecture, step: 1.0).winner == MEMBERS[0]


def test_one_that_diverged_leaves_and_who_is_left_alone_wins_at_once():
    losses = [[None], [None], [9.0], [None]]
    result = race(MEMBERS[:4], (Rung(10, 4), Rung(20, 2)), judge_of(losses))
    assert result.winner == MEMBERS[2]
    assert [(one.step, one.loss) for one in result.judged] == [(10, None), (10, None), (10, 9.0), (10, None)]
    assert result.lost_steps == 30


def test_when_all_that_are_left_diverge_the_error_lists_every_one_that_did():
    losses = [[None], [2.0, None], [5.0], [1.0, None]]
    with pytest.raises(InputError) as caught:
        race(MEMBERS[:4], (Rung(10, 4), Rung(20, 2)), judge_of(losses))
    *diverged, mend = caught.value.problems
    expected = [(MEMBERS[0], 10), (MEMBERS[1], 20), (MEMBERS[3], 20)]
    assert diverged == [f"{architecture}: before step {step}" for architecture, step in expected]
    assert "peak_rate" in mend


def never(architecture, step):
    raise AssertionError("nobody is to be judged")


def test_one_finalist_wins_unjudged():
    result = race(MEMBERS[:1], plan_rungs(1, 1, 0.1), never)
    assert (result.winner, result.judged, result.lost_steps) == (MEMBERS[0], (), 0)


@pytest.mark.parametrize(
    ("finalists", "rungs", "problems"),
    [
        ([], (), ["there are none"]),
        (MEMBERS[:4], plan_rungs(5, 100, 0.5), ["expected [4, 2]"]),
        (MEMBERS[:4], (Rung(10, 4),), ["expected [4, 2]"]),
        (MEMBERS[:4], (Rung(10, 4), Rung(10, 2)), ["that rise"]),
        (MEMBERS[:2], (Rung(0, 2),), ["at least 1"]),
        ([*MEMBERS[:3], MEMBERS[0]], (Rung(9, 4), Rung(3, 2)), [str(MEMBERS[0]), "that rise"]),
    ],
)
def test_a_race_without_sense_is_refused_before_anybody_trains(finalists, rungs, problems):
    with pytest.raises(InputError) as caught:
        race(finalists, rungs, never)
    assert len(caught.value.problems) == len(problems)
    assert all(part in told for part, told in zip(problems, caught.value.problems, strict=True))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_cannot_be_ranked_is_a_mistake(loss):
    with pytest.raises(ValueError, match="at step 7 is"):
        race(MEMBERS[:2], (Rung(7, 2),), lambda architecture, step: loss)


@pytest.mark.parametrize(
    ("finalists", "steps", "price", "expected"),
    [
        (1, 1, 0.5, []),
        (2, 1_000, 0.3, [(300, 2)]),
        (2, 10, 1.0, [(9, 2)]),
        # 3: one loses after f, one after 2f.
        (3, 900, 1.0, [(300, 3), (600, 2)]),
        # 5: two lose after f, one after 2f, one after 4f.
        (5, 1_000, 0.8, [(100, 5), (200, 3), (400, 2)]),
        (8, 1_000, 0.6, [(50, 8), (100, 4), (200, 2)]),
        (8, 20, 0.6, [(1, 8), (2, 4), (4, 2)]),
    ],
)
def test_rungs_found_by_hand(finalists, steps, price, expected):
    assert [(rung.step, rung.finalists) for rung in plan_rungs(finalists, steps, price)] == expected


@settings(max_examples=300)
@given(finalists=st.integers(2, 40), steps=st.integers(1, 100_000), price=st.floats(0.01, 1))
def test_losers_take_the_price_as_near_as_whole_steps_allow(finalists, steps, price):
    try:
        rungs = plan_rungs(finalists, steps, price)
    except InputError as error:
        # It names the fewest steps that do, and those do.
        (problem,) = error.problems
        least = int(problem.split("at least ")[1].split(", got")[0].replace(",", ""))
        assert steps < least
        assert plan_rungs(finalists, least, price)[0].step == 1
        return
    racing = [*(rung.finalists for rung in rungs), 1]
    at = [rung.step for rung in rungs]
    assert racing[0] == finalists
    assert all(after == (before + 1) // 2 for before, after in pairwise(racing))
    assert at[0] >= 1
    assert at[-1] < steps
    assert all(before < after for before, after in pairwise(at))
    # A rung lies within half a step of its place, or one step before the end instead of at it.
    lost = sum(step * (racing[i] - racing[i + 1]) for i, step in enumerate(at))
    assert abs(lost - price * steps) <= max(1, (finalists - 1) / 2) + 1e-6
    assert all(abs(step - 2**i * at[0]) <= 2**i / 2 + 1 / 2 for i, step in enumerate(at))


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ((0, 0, 0.0), ["finalists", "steps", "price"]),
        ((4, 100, 1.5), ["price: expected more than 0 and at most 1, got 1.5"]),
        ((4, 100, math.nan), ["price"]),
        ((8, 19, 0.6), ["needs at least 20, got 19; train longer, let fewer race, or raise the price"]),
        ((2, 1, 1.0), ["needs at least 2, got 1"]),
    ],
)
def test_a_plan_that_is_impossible_says_the_mend(arguments, problems):
    with pytest.raises(InputError) as caught:
        plan_rungs(*arguments)
    assert len(caught.value.problems) == len(problems)
    assert all(part in told for part, told in zip(problems, caught.value.problems, strict=True))
