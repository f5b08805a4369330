"""The picture of how faithful supernets are: inherited losses against those of training from scratch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import kendalltau

from automoe.errors import InputError
from automoe.report.style import BLUE, GREEN, INK, STYLE, VERMILLION, save
from automoe.report.tables import MISSING

_Group: TypeAlias = Literal["dense", "few", "many"]
_FEW = 2.0  # experts a layer, at most
_GROUP_LOOK: dict[_Group, tuple[str, str]] = {
    "dense": ("dense", BLUE),
    "few": (f"few: up to {_FEW:.0f} experts a layer", GREEN),
    "many": (f"many: more than {_FEW:.0f}", VERMILLION),
}
_COLUMNS = 3
_DOT = 6.0  # points
_OUTLINE = 1.4  # points


@dataclass(frozen=True, slots=True)
class Point:
    """One member of a search space.

    Args:
        own_loss: validation loss when trained from scratch, nats a token.
        inherited_loss: the same with the supernet's parameters.
        experts: mean number of experts over its layers; 1 is dense.
        within_budget: whether it keeps the constraints.
    """

    own_loss: float
    inherited_loss: float
    experts: float
    within_budget: bool


def draw_fidelity(panels: Mapping[str, Sequence[Point]], path: str | Path) -> Figure:
    """Draw one panel a supernet rule, one dot a member; write the picture to `path`.

    A panel's title has Kendall's rank correlation tau-b (Kendall, 1945) of both losses, a dash where there is
    none (fewer than two members, or all alike). Colours say how many experts a layer a member has; those
    within the budget have an outline.

    Args:
        panels: name of a rule to its members.

    Raises:
        InputError: no panels; or listing every panel without members and every member with a loss that is not
            finite or less than one expert a layer; or the folder is missing, or the disk is full.
    """
    if problems := _problems(panels):
        raise InputError("there is no picture of this fidelity", problems)
    rows, columns = math.ceil(len(panels) / _COLUMNS), min(len(panels), _COLUMNS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(4.4, 0.6 + 2.9 * columns), 0.9 + 2.8 * rows), layout="constrained")
        # Rules share what a member reaches alone; how much its inherited loss lies above that is the rule's.
        grid = list(figure.subplots(rows, columns, sharex=True, squeeze=False).flat)
        for axes, (rule, points) in zip(grid, panels.items(), strict=False):
            _draw_panel(axes, rule, points)
        for axes in grid[len(panels) :]:
            axes.remove()
        for axes in grid[len(panels) - columns : len(panels)]:
            axes.tick_params(labelbottom=True)  # also where there is no panel below
        figure.supxlabel("own validation loss, trained from scratch (nats a token)", size="medium")
        figure.supylabel("inherited validation loss (nats a token)", size="medium")
        figure.legend(handles=_legend(), loc="outside upper left", ncols=2 if columns == 1 else 4)
        save(figure, path)
    return figure


def _draw_panel(axes: Axes, rule: str, points: Sequence[Point]) -> None:
    for group, (_, colour) in _GROUP_LOOK.items():
        if own := [point for point in points if _group(point) == group]:
            axes.scatter(
                [point.own_loss for point in own], [point.inherited_loss for point in own], s=_DOT**2,
                color=colour, edgecolors=[INK if point.within_budget else "none" for point in own],
                linewidths=_OUTLINE, gid=f"{group}:{rule}",
            )  # fmt: skip
    axes.set_title(f"{rule}, τ {_tau_text(points)}")


def _tau_text(points: Sequence[Point]) -> str:
    own, inherited = [point.own_loss for point in points], [point.inherited_loss for point in points]
    if min(len(set(own)), len(set(inherited))) < 2:
        return MISSING
    return f"{float(kendalltau(own, inherited).statistic):.2f}"


def _group(point: Point) -> _Group:
    if point.experts == 1:
        return "dense"
    return "few" if point.experts <= _FEW else "many"


def _legend() -> list[Line2D]:
    """A dot for every colour, and one with nothing but the outline."""
    dots = [
        Line2D(
            [], [], linestyle="", marker="o", markersize=_DOT, color=colour, markeredgewidth=0, label=label
        )
        for label, colour in _GROUP_LOOK.values()
    ]
    outline = Line2D(
        [], [], linestyle="", marker="o", markersize=_DOT, markerfacecolor="none", markeredgecolor=INK,
        markeredgewidth=_OUTLINE, label="within the budget",
    )  # fmt: skip
    return [*dots, outline]


def _problems(panels: Mapping[str, Sequence[Point]]) -> list[str]:
    if not panels:
        return ["there are no panels: give the members of at least one rule"]
    problems = [
        f"{rule}: there are no members; leave it out" for rule, points in panels.items() if not points
    ]
    for rule, points in panels.items():
        for index, point in enumerate(points):
            for name, loss in (("own_loss", point.own_loss), ("inherited_loss", point.inherited_loss)):
                if not math.isfinite(loss):
                    problems.append(f"{rule}[{index}].{name}: {loss} is not finite; leave the member out")
            if not point.experts >= 1:
                problems.append(f"{rule}[{index}].experts: expected at least 1, got {point.experts}")
    return problems
