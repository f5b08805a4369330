"""A race of finalists: successive halving by trainings that can be continued.

Of all finalists, trained for a small part of their steps, the better half is trained for twice as many, and
so on until one is left (Jamieson & Talwalkar 2016, arXiv 1502.07943; a bracket of Hyperband, Li et al. 2018,
arXiv 1603.06560, with halves). The winner's training just goes on; the steps of the others are the race's
price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from automoe.design.architecture import Architecture
from automoe.errors import InputError


@dataclass(frozen=True, slots=True)
class Rung:
    """All that still race are trained up to `step` and judged; the better half, rounded up, goes on.

    Args:
        step: of the training, counted from its start.
        finalists: how many race up to here, unless some left because they diverged.
    """

    step: int
    finalists: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One judgement.

    Args:
        step: up to which it was trained.
        loss: on the validation set, in nats a token; None when the training diverged.
    """

    architecture: Architecture
    step: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class RaceResult:
    """How a race ended.

    Args:
        winner: who is left.
        judged: all judgements, in order.
        lost_steps: of training, of all others together; of one that diverged, up to the rung it missed.
    """

    winner: Architecture
    judged: tuple[Judged, ...]
    lost_steps: int


Judge = Callable[[Architecture, int], float | None]
"""Trains an architecture up to a step, continuing where it was, and returns its validation loss (nats a
token); None when the training diverged."""


def plan_rungs(finalists: int, steps: int, price: float) -> tuple[Rung, ...]:
    """The rungs of a race, at f, 2f, 4f, ... of a training's steps, until one finalist is left.

    With n_0 = `finalists` and n_{r+1} = n_r / 2, rounded up, n_r - n_{r+1} lose at rung r, after 2^r f
    `steps` each. All losers together take `price` trainings:

        f = price / sum_r 2^r (n_r - n_{r+1})

    Eight finalists take 4 + 2 * 2 + 4 * 1 = 12 f, so a price of 0.6 makes f = 0.05. Steps are rounded, and
    a rung is at least one step before the end.

    Args:
        finalists: at least 1; one needs no rungs.
        steps: of a whole training.
        price: of the race, in whole trainings; more than 0, at most 1.

    Raises:
        InputError: a value out of range, or fewer steps than put the first rung at 1.
    """
    problems = []
    if finalists < 1:
        problems.append(f"finalists: expected at least 1, got {finalists}")
    if steps < 1:
        problems.append(f"steps: expected at least 1, got {steps}")
    if not 0 < price <= 1:
        problems.append(f"price: expected more than 0 and at most 1, got {price}")
    if problems:
        raise InputError("this race is impossible", problems)
    racing = _halved(finalists)
    weight = sum(2**rung * (number // 2) for rung, number in enumerate(racing))
    least_steps = max(2, math.ceil(weight / price)) if racing else 1
    if steps < least_steps:
        problem = (
            f"steps: a race of {finalists} finalists at the price of {price:g} trainings needs at least "
            f"{least_steps:,}, got {steps:,}; train longer, let fewer race, or raise the price"
        )
        raise InputError("this race is impossible", [problem])
    return tuple(
        Rung(min(round(2**rung * steps * price / weight), steps - 1), number)
        for rung, number in enumerate(racing)
    )


def race(
    finalists: Sequence[Architecture],
    rungs: Sequence[Rung],
    judge: Judge,
    heard: Callable[[Judged], None] | None = None,
) -> RaceResult:
    """Let finalists race; who is left wins.

    At each rung all are judged before anybody goes on. Of those judged there the better half, rounded up,
    goes on (of equals the first given), but none that diverged: so fewer are left when more than half did.
    Who is left alone wins at once.

    Args:
        finalists: distinct; one wins unjudged.
        rungs: those of `plan_rungs` for this many.
        judge: called at most once an architecture and rung, with its steps in rising order.
        heard: told of each judgement.

    Raises:
        InputError: no finalists, the same one twice, rungs planned for other numbers of them; or all that
            still raced diverged, which are listed.
        ValueError: a loss is not finite.
    """
    _check(finalists, rungs)
    racing = tuple(finalists)
    judged: list[Judged] = []
    for rung in rungs:
        if len(racing) == 1:
            break
        losses: dict[Architecture, float] = {}
        for architecture in racing:
            loss = judge(architecture, rung.step)
            if loss is not None:
                if not math.isfinite(loss):
                    raise ValueError(f"the loss of {architecture} at step {rung.step} is {loss}")
                losses[architecture] = loss
            judged.append(Judged(architecture, rung.step, loss))
            if heard:
                heard(judged[-1])
        if not losses:
            raise InputError("no finalist is left: their trainings diverged", list(_diverged(judged)))
        better = sorted(losses, key=losses.__getitem__)[: math.ceil(len(racing) / 2)]
        racing = tuple(architecture for architecture in racing if architecture in better)
    (winner,) = racing
    trained_steps = {judgement.architecture: judgement.step for judgement in judged}
    lost_steps = sum(steps for architecture, steps in trained_steps.items() if architecture != winner)
    return RaceResult(winner, tuple(judged), lost_steps)


def _halved(finalists: int) -> tuple[int, ...]:
    """How many race at each rung: 7, 4, 2; none for one finalist."""
    if finalists < 2:
        return ()
    return (finalists, *_halved(math.ceil(finalists / 2)))


def _check(finalists: Sequence[Architecture], rungs: Sequence[Rung]) -> None:
    problems = [
        f"{architecture}: occurs twice; give each finalist once"
        for architecture in dict.fromkeys(finalists)
        if finalists.count(architecture) > 1
    ]
    if not finalists:
        problems.append("finalists: there are none; give at least one")
    planned, expected = [rung.finalists for rung in rungs], list(_halved(len(finalists)))
    if planned != expected:
        problems.append(
            f"rungs: for {planned} finalists, expected {expected}; plan them for {len(finalists)} finalists"
        )
    steps = [rung.step for rung in rungs]
    if steps != sorted({step for step in steps if step >= 1}):
        problems.append(f"rungs: expected steps of at least 1 that rise, got {steps}")
    if problems:
        raise InputError("this race is impossible", problems)


def _diverged(judged: Sequence[Judged]) -> Iterator[str]:
    """A line each, and the mend."""
    for judgement in judged:
        if judgement.loss is None:
            yield f"{judgement.architecture}: before step {judgement.step:,}"
    yield "lower the training's peak_rate, or raise its warmup_steps"
