"""Pictures of predicted latencies: predicted against measured, and where the time goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from automoe.cost.device.profile import Kind, LatencyParts
from automoe.report.style import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, STYLE, VERMILLION, save

_KIND_LOOK: dict[Kind, tuple[str, str]] = {
    "attention": ("attention", BLUE),
    "experts": ("experts", VERMILLION),
    "output": ("output layer", GREEN),
    "overhead": ("embedding, beam search, overhead", ORANGE),
}
_BAR_HEIGHT = 0.72


def predicted_against_measured(
    predicted_ms: Sequence[float], measured_ms: Sequence[float], path: str | Path, title: str
) -> Figure:
    """Draw one point an architecture, with the diagonal and 5 % to both sides; write it to `path`.

    Args:
        predicted_ms, measured_ms: of the same architectures, in one order.
        title: the headline.

    Raises:
        ValueError: no architectures, or not as many in both.
        InputError: the folder is missing, or the disk is full.
    """
    if not predicted_ms or len(predicted_ms) != len(measured_ms):
        raise ValueError(f"{len(predicted_ms)} predicted latencies, {len(measured_ms)} measured ones")
    low, high = min(*predicted_ms, *measured_ms), max(*predicted_ms, *measured_ms)
    ends = (low - 0.05 * (high - low), high + 0.05 * (high - low))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 4.8), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(
            ends, [0.95 * x for x in ends], [1.05 * x for x in ends], color=FAINT, alpha=0.6, linewidth=0,
            label="within 5 %",
        )  # fmt: skip
        axes.plot(ends, ends, color=MUTED, linewidth=0.9)
        axes.scatter(
            measured_ms, predicted_ms, s=22, alpha=0.75, color=BLUE, linewidths=0, gid="architectures",
            label=f"{len(measured_ms)} architectures",
        )  # fmt: skip
        axes.set(xlim=ends, ylim=ends, xlabel="measured latency (ms)", ylabel="predicted latency (ms)")
        axes.set(title=title, aspect="equal")
        axes.legend()
        save(figure, path)
    return figure


def where_the_time_goes(parts: LatencyParts, path: str | Path, subject: str = "a sentence") -> Figure:
    """Draw a stacked bar for every layer and for what belongs to no layer; write it to `path`.

    Top to bottom as data flows: the encoder, the decoder, the output layer. A bar's pieces are its
    attention and its experts; each has a gid, e.g. `experts:decoder.0`.

    Args:
        subject: whose time it is.

    Raises:
        InputError: the folder is missing, or the disk is full.
    """
    rows: defaultdict[str, dict[Kind, float]] = defaultdict(dict)
    # Within a stack, what belongs to no layer comes last.
    for part in sorted(parts.parts, key=lambda x: (x.stack != "encoder", x.layer is None, x.layer or 0)):
        name = f"{part.stack}.{part.layer}" if part.layer is not None else part.stack
        rows[name][part.kind] = part.ms
    labels = {name: _row_label(name) for name in rows}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.4 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        used: set[Kind] = set()
        for row, (name, pieces) in enumerate(rows.items()):
            left = 0.0
            for kind, (label, colour) in _KIND_LOOK.items():
                if pieces.get(kind, 0.0) > 0:
                    axes.barh(
                        row, pieces[kind], _BAR_HEIGHT, left=left, color=colour, gid=f"{kind}:{name}",
                        label=None if kind in used else label,
                    )  # fmt: skip
                    used.add(kind)
                    left += pieces[kind]
            axes.text(left, row, f" {left:.3g}", size=7.5, color=INK, va="center_baseline")
        axes.set_yticks(range(len(rows)), [labels[name] for name in rows])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
        axes.set(xlabel=f"ms {subject}", title=f"Where the time of {subject} goes")
        encoder, decoder = parts.encoder_ms, parts.decoder_ms
        axes.set_title(
            f"{parts.latency_ms:.4g} ms: encoder {encoder:.3g}, decoder {decoder:.4g}", loc="right", size=8
        )
        figure.legend(loc="outside lower center", ncols=4)
        save(figure, path)
    return figure


def _row_label(name: str) -> str:
    stack, _, layer = name.partition(".")
    if layer:
        return f"{stack} layer {int(layer) + 1}"
    return f"{stack} as a whole"
