"""The pictures of a run that have axes: loss curves, and a search's candidates with their front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from automoe.cost.costs import COSTS
from automoe.report.style import FAINT, INK, MUTED, SERIES, STYLE, VERMILLION, save
from automoe.search.candidate import Candidate
from automoe.search.log import LogEntry

_VALIDATION = "validation/"
_MARKERS = "o^svD"
_BASELINE_MARKERS = "DsPX^v"
_LINE_STYLES = ("-", "--", "-.", ":")


def loss_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], path: str | Path) -> Figure:
    """Draw training and validation losses over the steps, a colour a training; write it to `path`.

    The training loss includes label smoothing and load balance, so it has its own panel: each step's
    value faint, its running mean over it. Validation losses are nats a token.

    Args:
        histories: name of a training to the records of its history, oldest first, with `step`, `loss`
            and, where it was validated, `validation/NAME`.

    Raises:
        ValueError: a history without records.
        InputError: the folder is missing, or the disk is full.
    """
    if empty := [name for name, records in histories.items() if not records]:
        raise ValueError(f"histories without records: {', '.join(empty)}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        training, validation = figure.subplots(1, 2)
        for index, (name, records) in enumerate(histories.items()):
            # More trainings than colours differ in their markers, too.
            colour = SERIES[index % len(SERIES)]
            marker = _MARKERS[index // len(SERIES) % len(_MARKERS)]
            steps = [record["step"] for record in records]
            losses = [record["loss"] for record in records]
            training.plot(steps, losses, color=colour, alpha=0.2, linewidth=0.7, gid=f"raw:{name}")
            training.plot(*_running_mean(steps, losses), color=colour, label=name, gid=f"mean:{name}")
            _validation_lines(validation, name, records, colour, marker)
        training.set(title="Training loss", xlabel="step", ylabel="nats a token, smoothed labels")
        validation.set(title="Validation loss", xlabel="step", ylabel="nats a token")
        lines = [*training.get_lines(), *validation.get_lines()]
        handles = {str(line.get_label()): line for line in lines if not str(line.get_label()).startswith("_")}
        figure.legend(handles.values(), handles.keys(), loc="outside right upper")
        save(figure, path)
    return figure


def candidates(
    entries: Iterable[LogEntry],
    cost_name: str,
    path: str | Path,
    front: Sequence[Candidate],
    chosen: Candidate | None = None,
    baselines: Mapping[str, Candidate] | None = None,
    score_label: str = "validation loss",
) -> Figure:
    """Draw every scored candidate of a search, score against cost; write the picture to `path`.

    A colour and marker for each system searched for, candidates that break a constraint in grey; the
    front as a step line: the best score to be had at each cost. Candidates without a score or without
    this cost have no place in the picture and are left out.

    Args:
        entries: `CandidateLog.entries`.
        cost_name: of the table `automoe.cost.costs.COSTS`.
        front: as `automoe.search.candidate.front` gives it, each with score and cost.
        chosen: marked by a star. `baselines`: by name, marked black.
        score_label: what the score is; lower is better.

    Raises:
        KeyError: an unknown cost.
        InputError: the folder is missing, or the disk is full.
    """
    label, scale = COSTS[cost_name].label, COSTS[cost_name].scale
    shown = [e for e in entries if _has_place(e.candidate, cost_name)]

    def points(of: Iterable[Candidate]) -> tuple[list[float], list[float]]:
        placed = [c for c in of if _has_place(c, cost_name)]
        return [c.costs[cost_name] * scale for c in placed], [c.score for c in placed if c.score is not None]

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.4), layout="constrained")
        axes = figure.subplots()
        infeasible = [e.candidate for e in shown if not e.feasible]
        if infeasible:
            axes.scatter(
                *points(infeasible), s=14, color=FAINT, label="breaks a constraint", gid="infeasible"
            )
        for index, system in enumerate(dict.fromkeys(e.search.system for e in shown if e.feasible)):
            of_system = [e.candidate for e in shown if e.feasible and e.search.system == system]
            axes.scatter(
                *points(of_system), s=20, alpha=0.6, linewidths=0, color=SERIES[index % len(SERIES)],
                marker=_MARKERS[index % len(_MARKERS)], label=system, gid=f"system:{system}",
            )  # fmt: skip
        axes.plot(
            *points(front),
            color=INK,
            linewidth=1.2,
            drawstyle="steps-post",
            label="Pareto front",
            gid="front",
        )
        for index, (name, baseline) in enumerate((baselines or {}).items()):
            marker = _BASELINE_MARKERS[index % len(_BASELINE_MARKERS)]
            axes.scatter(
                *points([baseline]), s=52, marker=marker, facecolors="white", edgecolors=INK, linewidths=1.3,
                label=name, gid=f"baseline:{name}", zorder=4,
            )  # fmt: skip
        if chosen is not None:
            axes.scatter(
                *points([chosen]), s=230, marker="*", color=VERMILLION, edgecolors="white", linewidths=1,
                label="chosen", gid="chosen", zorder=5,
            )  # fmt: skip
        axes.set(xlabel=label, ylabel=f"{score_label} (lower is better)")
        axes.set_title(f"{len(shown)} scored candidates")
        axes.tick_params(color=MUTED)
        figure.legend(loc="outside right upper")
        save(figure, path)
    return figure


def _has_place(candidate: Candidate, cost_name: str) -> bool:
    return candidate.score is not None and cost_name in candidate.costs


def _running_mean(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The mean of a window of a fortieth of all values, placed at the window's middle."""
    window = max(1, len(values) // 40)
    means = np.convolve(values, np.full(window, 1 / window), mode="valid")
    first = (window - 1) // 2
    return list(steps[first : first + len(means)]), means.tolist()


def _validation_lines(
    axes: Axes, name: str, records: Sequence[Mapping[str, float]], colour: str, marker: str
) -> None:
    networks = dict.fromkeys(key for record in records for key in record if key.startswith(_VALIDATION))
    for index, key in enumerate(networks):
        points = [(record["step"], record[key]) for record in records if key in record]
        label = name if len(networks) == 1 else f"{name}: {key.removeprefix(_VALIDATION)}"
        axes.plot(
            *zip(*points, strict=True), color=colour, linestyle=_LINE_STYLES[index % len(_LINE_STYLES)],
            marker=marker, markersize=2.5, label=label, gid=f"{key}:{name}",
        )  # fmt: skip
