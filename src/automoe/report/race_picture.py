"""The picture of a race by successive halving (Jamieson and Talwalkar, 2016): who led, who left when."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from automoe.errors import InputError
from automoe.report.style import BLUE, MUTED, STYLE, VERMILLION, save

Judgement: TypeAlias = tuple[str, int, float | None]
"""A finalist's name, the step at which it was judged, its validation loss in nats a token; None: diverged."""

_MARKERS = "o^svDP<>"


@dataclass(frozen=True, slots=True)
class _Track:
    """What one finalist ran: (step, loss) where it has a loss, and the step at which it had diverged."""

    name: str
    points: tuple[tuple[int, float], ...]
    diverged_at: int | None
    dense: bool
    wins: bool

    @property
    def label(self) -> str:
        facts = {"dense": self.dense, "winner": self.wins, "diverged": self.diverged_at is not None}
        true = [fact for fact, holds in facts.items() if holds]
        return f"{self.name} ({', '.join(true)})" if true else self.name

    @property
    def colour(self) -> str:
        if self.wins:
            return VERMILLION
        return BLUE if self.dense else MUTED


def draw_race(
    judged: Sequence[Judgement], winner: str, path: str | Path, dense: Collection[str] = ()
) -> Figure:
    """Draw a line of validation loss against step for every finalist; write the picture to `path`.

    The winner is in the accent colour; dense finalists are dashed and in a colour of their own, the others
    grey. A loser's line ends where it left. A cross marks where a finalist had diverged: at the height of its
    last loss, to which dots lead, or above all losses if it never had any.

    Args:
        judged: in any order. `winner`: a name among them.
        dense: the names of the finalists without mixtures.

    Raises:
        InputError: listing every step judged twice, loss that is not finite, loss after a divergence and name
            that was never judged; a winner that diverged; or the folder is missing, or the disk is full.
    """
    if problems := list(_problems(judged, winner, dense)):
        raise InputError("there is no picture of this race", problems)
    tracks = [_track(judged, name, winner, dense) for name in dict.fromkeys(name for name, _, _ in judged)]
    all_losses = [loss for _, _, loss in judged if loss is not None]
    above_all = max(all_losses) + 0.06 * (max(all_losses) - min(all_losses) or 1.0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.subplots()
        for index, track in enumerate(tracks):
            steps, losses = [step for step, _ in track.points], [loss for _, loss in track.points]
            axes.plot(
                steps, losses, color=track.colour, marker=_MARKERS[index % len(_MARKERS)], markersize=5,
                linestyle="--" if track.dense else "-", linewidth=2.2 if track.wins else 1.2,
                label=track.label, gid=f"race:{track.name}", zorder=4 if track.wins else 3,
            )  # fmt: skip
            if track.diverged_at is not None:
                height = losses[-1] if losses else above_all
                axes.hlines(
                    height, steps[-1] if steps else track.diverged_at, track.diverged_at, color=track.colour,
                    linestyles=":", linewidth=1.2,
                )  # fmt: skip
                axes.scatter(
                    [track.diverged_at], [height], s=70, marker="x", color=track.colour, linewidths=1.8,
                    gid=f"diverged:{track.name}", zorder=5,
                )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="training step", ylabel="validation loss (nats a token)")
        axes.set_title(f"Race of {len(tracks)} finalists" if len(tracks) > 1 else "Race of one finalist")
        figure.legend(loc="outside right upper")
        save(figure, path)
    return figure


def _track(judged: Sequence[Judgement], name: str, winner: str, dense: Collection[str]) -> _Track:
    own = sorted((step, loss) for of, step, loss in judged if of == name)
    return _Track(
        name=name,
        points=tuple((step, loss) for step, loss in own if loss is not None),
        diverged_at=next((step for step, loss in own if loss is None), None),
        dense=name in dense,
        wins=name == winner,
    )


def _problems(judged: Sequence[Judgement], winner: str, dense: Collection[str]) -> Iterator[str]:
    for (name, step), times in Counter((name, step) for name, step, _ in judged).items():
        if times > 1:
            yield f"{name}: judged {times} times at step {step}; keep one"
    diverged: dict[str, int] = {}
    for name, step, loss in judged:
        if loss is None:
            diverged[name] = min(step, diverged.get(name, step))
        elif not math.isfinite(loss):
            yield f"{name}: a loss of {loss} at step {step}; a divergence is None"
    for name, step, _ in judged:
        if name in diverged and step > diverged[name]:
            yield f"{name}: judged at step {step}, but diverged at {diverged[name]}; end it there"
    names = list(dict.fromkeys(name for name, _, _ in judged))
    known = f"(judged: {', '.join(names) or 'none'})"
    for name in dict.fromkeys([winner, *dense]):
        if name not in names:
            yield f"{name}: was never judged {known}; name a finalist"
    if winner in diverged:
        yield f"{winner}: is the winner, but diverged at step {diverged[winner]}; name another"
