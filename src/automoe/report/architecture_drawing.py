"""An architecture, drawn layer by layer with its experts to scale.

The axes are in inches, so that text and boxes keep their proportions however many layers there are.
Both stacks grow upwards from their first layer. Every artist that stands for something has a gid:
`layer:encoder.0`, `expert:encoder.0.2`, `self:decoder.1` (or `average:` or `SSRU:`), `cross:decoder.1`,
`span:decoder.1`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path as Curve

from automoe.design.architecture import (
    STACKS,
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    Layer,
    SelfAttention,
    Ssru,
)
from automoe.report.style import BLUE, FAINT, GREEN, INK, MUTED, PURPLE, STYLE, VERMILLION, save, tint

# Inches.
_MARGIN = 0.25
_CARD_WIDTH = 3.85
_CARD_GAP = 0.13
_CARD_PADDING = 0.12
_ATTENTION_WIDTH, _ATTENTION_HEIGHT, _ATTENTION_GAP = 0.96, 0.25, 0.05
_ROUTER_X = _CARD_PADDING + _ATTENTION_WIDTH + 0.2
_BARS_X = _ROUTER_X + 0.36
_LONGEST_BAR = 1.42
_IDENTITY_WIDTH = 0.3
_BETWEEN = 1.1
_HEADER, _FOOTER = 0.8, 0.5
_SPAN_COLOURS = (MUTED, GREEN, PURPLE)  # by the number of encoder layers attended to


@dataclass(frozen=True, slots=True)
class _Box:
    """One attention, or what stands for it: what kind it is, its heads (None: it has none), and over how many
    encoder layers (None: its own stack)."""

    kind: str
    heads: int | None
    encoder_layers_attended: int | None


@dataclass(frozen=True, slots=True)
class _Card:
    """One layer and its place: the lower left corner and the height, in inches."""

    layer: Layer
    boxes: tuple[_Box, ...]
    x: float
    y: float
    height: float

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def ffn(self) -> FeedForward:
        return self.layer.feed_forward

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def draw(
    architecture: Architecture,
    path: str | Path,
    title: str,
    routing_shares: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Draw `architecture` and write the picture to `path`, in the format of its suffix.

    Encoder left, decoder right; each layer is a card with its attention (heads) and its experts: bars
    as long as their FFN sizes, one scale for the whole picture; an identity expert is a dashed box. A
    layer with several experts has a router, with the `top_k` it sends a token to. Curves lead from
    the encoder layers a decoder layer attends to.

    Args:
        title: the headline.
        routing_shares: layer name ("encoder.0") to each expert's share of the layer's tokens, 0 to 1;
            a layer that has shares is shaded by them, and they are written beside its bars.

    Raises:
        ValueError: shares for a layer that does not exist, or not one for each expert.
        InputError: the folder is missing, or the disk is full.
    """
    shares = dict(routing_shares or {})
    _check_shares(architecture, shares)
    stacks = {stack: list(architecture.layers(stack)) for stack in STACKS}
    height = _HEADER + _FOOTER + max(_stack_height(layers) for layers in stacks.values())
    width = 2 * (_MARGIN + _CARD_WIDTH) + _BETWEEN
    left = {"encoder": _MARGIN, "decoder": _MARGIN + _CARD_WIDTH + _BETWEEN}
    largest = max(size for layer in architecture.layers() for size in layer.feed_forward.ffn_sizes)
    bar_scale = _LONGEST_BAR / max(largest, 1)

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.set_axis_off()
        axes.text(_MARGIN, height - 0.28, title, size=13, weight="bold", va="center")
        cards = {stack: _place(layers, left[stack]) for stack, layers in stacks.items()}
        for stack, colour in zip(STACKS, (BLUE, VERMILLION), strict=True):
            layers = stacks[stack]
            headline = f"{stack}  ·  {_count(len(layers), 'layer')}  ·  width {layers[0].width}"
            axes.text(left[stack], height - 0.6, headline, size=9.5, weight="bold", color=colour, va="center")
            for card in cards[stack]:
                _draw_card(axes, card, colour, bar_scale, shares.get(card.name))
        _draw_spans(axes, cards["encoder"], cards["decoder"])
        _draw_legend(axes, largest, bar_scale, bool(shares))
        save(figure, path)
    return figure


def _check_shares(architecture: Architecture, shares: Mapping[str, Sequence[float]]) -> None:
    experts = {layer.name: len(layer.feed_forward.experts) for layer in architecture.layers()}
    wrong = [
        f"{name}: {len(values)} shares for {experts.get(name, 0)} experts"
        for name, values in shares.items()
        if len(values) != experts.get(name)
    ]
    if wrong:
        raise ValueError("routing shares do not fit the architecture: " + "; ".join(wrong))


def _pitch(experts: int) -> float:
    """From one bar to the next: many experts get thinner bars, down to the smallest legible text."""
    return max(0.11, min(0.21, 1.4 / experts))


def _boxes(layer: Layer) -> tuple[_Box, ...]:
    """The attentions of a layer, bottom first; its experts are drawn beside them."""
    boxes: list[_Box] = []
    for sublayer in layer.sublayers:
        match sublayer:
            case SelfAttention(heads):
                boxes.append(_Box("self", heads, None))
            case AverageAttention():
                boxes.append(_Box("average", None, None))
            case Ssru():
                boxes.append(_Box("SSRU", None, None))
            case CrossAttention(heads, attended):
                boxes.append(_Box("cross", heads, attended))
            case FeedForward():
                pass
            case _:
                assert_never(sublayer)
    return tuple(boxes)


def _card_height(layer: Layer) -> float:
    boxes, experts = len(_boxes(layer)), len(layer.feed_forward.experts)
    attention = boxes * _ATTENTION_HEIGHT + (boxes - 1) * _ATTENTION_GAP
    return 2 * _CARD_PADDING + max(attention, experts * _pitch(experts))


def _stack_height(layers: Sequence[Layer]) -> float:
    return sum(_card_height(layer) for layer in layers) + (len(layers) - 1) * _CARD_GAP


def _place(layers: Sequence[Layer], x: float) -> list[_Card]:
    cards: list[_Card] = []
    y = _FOOTER
    for layer in layers:
        cards.append(_Card(layer, _boxes(layer), x, y, _card_height(layer)))
        y += cards[-1].height + _CARD_GAP
    return cards


def _draw_card(
    axes: Axes, card: _Card, colour: str, bar_scale: float, shares: Sequence[float] | None
) -> None:
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch(
            (card.x, card.y),
            _CARD_WIDTH,
            card.height,
            boxstyle=style,
            facecolor=tint(colour, 0.045),
            edgecolor=tint(colour, 0.35),
            linewidth=0.8,
            gid=f"layer:{card.name}",
        )
    )
    y = card.middle - (len(card.boxes) * (_ATTENTION_HEIGHT + _ATTENTION_GAP) - _ATTENTION_GAP) / 2
    for box in card.boxes:
        attended = box.encoder_layers_attended
        edge = colour if attended is None else _span_colour(attended)
        _draw_attention(axes, card, y, box.kind, box.heads, edge)
        y += _ATTENTION_HEIGHT + _ATTENTION_GAP
    _draw_experts(axes, card, colour, bar_scale, shares)
    corner = (card.x, card.y + card.height - 0.04)
    axes.add_patch(Circle(corner, 0.09, facecolor=colour, edgecolor="white", linewidth=1, zorder=3))
    text = f"{card.layer.index + 1}"
    axes.text(
        *corner, text, size=7, weight="bold", color="white", ha="center", va="center_baseline", zorder=4
    )


def _draw_attention(axes: Axes, card: _Card, y: float, kind: str, heads: int | None, colour: str) -> None:
    x = card.x + _CARD_PADDING
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            _ATTENTION_WIDTH,
            _ATTENTION_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.04",
            facecolor="white",
            edgecolor=colour,
            linewidth=1,
            gid=f"{kind}:{card.name}",
        )
    )
    middle = y + _ATTENTION_HEIGHT / 2
    axes.text(x + 0.06, middle, kind, size=7.5, color=MUTED, va="center_baseline")
    if heads is not None:
        right = x + _ATTENTION_WIDTH - 0.06
        axes.text(right, middle, _count(heads, "head"), size=7.5, ha="right", va="center_baseline")


def _draw_experts(
    axes: Axes, card: _Card, colour: str, bar_scale: float, shares: Sequence[float] | None
) -> None:
    sizes, count = card.ffn.ffn_sizes, len(card.ffn.experts)
    pitch = _pitch(count)
    text_size = min(8.0, pitch * 45)
    router_x, bars_x = card.x + _ROUTER_X, card.x + _BARS_X
    top = card.middle + count * pitch / 2
    for index, size in enumerate(sizes):
        middle = top - (index + 0.5) * pitch
        strength = 0.85 if shares is None else _shade(shares[index])
        bottom, thickness = middle - 0.39 * pitch, 0.78 * pitch
        gid = f"expert:{card.name}.{index}"
        length = size * bar_scale if size else _IDENTITY_WIDTH
        look: dict[str, Any]
        if size:
            look = {"facecolor": tint(colour, strength), "edgecolor": colour, "linewidth": 0.6}
        else:
            look = {"facecolor": "none", "edgecolor": colour, "linewidth": 0.8, "linestyle": (0, (3, 2))}
        axes.add_patch(Rectangle((bars_x, bottom), length, thickness, gid=gid, **look))
        label = f"{size}" if size else "identity"
        if shares is not None:
            label += f"   {shares[index]:.0%}"
        axes.text(bars_x + length + 0.06, middle, label, size=text_size, va="center_baseline")
        if count > 1:
            weight = 0.9 if shares is None else 0.4 + 2.6 * shares[index]
            line = tint(colour, 0.55)
            axes.plot([router_x, bars_x - 0.03], [card.middle, middle], color=line, linewidth=weight)
    if count > 1:
        face = {"facecolor": "white", "edgecolor": colour, "linewidth": 1, "zorder": 3}
        axes.add_patch(Circle((router_x, card.middle), 0.085, gid=f"router:{card.name}", **face))
        axes.text(
            router_x, card.middle, f"{card.ffn.top_k}", size=7, ha="center", va="center_baseline", zorder=4
        )
    else:
        attention_end = card.x + _CARD_PADDING + _ATTENTION_WIDTH
        axes.plot(
            [attention_end + 0.06, bars_x - 0.03], [card.middle] * 2, color=tint(colour, 0.55), linewidth=0.9
        )


def _shade(share: float) -> float:
    """The strength of a bar's colour; half of a layer's tokens and more is the full one."""
    return 0.08 + 0.92 * min(1.0, 2 * share)


def _span_colour(attended: int) -> str:
    return _SPAN_COLOURS[(attended - 1) % len(_SPAN_COLOURS)]


def _draw_spans(axes: Axes, encoder: Sequence[_Card], decoder: Sequence[_Card]) -> None:
    """A bracket round the last n encoder layers for each n in use, and a curve to each decoder layer."""
    spans = [(card, box.encoder_layers_attended) for card in decoder for box in card.boxes]
    used = sorted({attended for _, attended in spans if attended is not None})
    for lane, attended in enumerate(used):
        first, last = encoder[-attended], encoder[-1]
        colour = _span_colour(attended)
        x = encoder[0].x + _CARD_WIDTH + 0.08 + 0.11 * lane
        low, high = first.y + 0.04, last.y + last.height - 0.04
        axes.plot([x - 0.04, x, x, x - 0.04], [low, low, high, high], color=colour, linewidth=1.4)
        start = (low + high) / 2
        for card in (c for c, n in spans if n == attended):
            # The curve ends before the card, so that the number at its corner stays clear.
            end_x, end_y = card.x - 0.1, card.middle + (_ATTENTION_HEIGHT + _ATTENTION_GAP) / 2
            bend = (end_x - x) * 0.5
            curve = Curve(
                [
                    (x, start), (x + bend, start), (end_x - bend, end_y), (end_x, end_y),
                    (card.x + _CARD_PADDING, end_y),
                ],
                [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4, Curve.LINETO],
            )  # fmt: skip
            axes.add_patch(
                PathPatch(curve, facecolor="none", edgecolor=colour, linewidth=1.2, gid=f"span:{card.name}")
            )


def _draw_legend(axes: Axes, largest: int, bar_scale: float, shaded: bool) -> None:
    y = 0.24
    unit = next((u for u in (1024, 256, 64, 16, 4, 1) if u <= largest), 1)
    x = _MARGIN
    axes.plot([x, x, x, x + unit * bar_scale, x + unit * bar_scale, x + unit * bar_scale],
              [y - 0.05, y + 0.05, y, y, y - 0.05, y + 0.05], color=INK, linewidth=1)  # fmt: skip
    words = [
        f"FFN size {unit}",
        "circle: experts a token is sent to",
        "bracket: encoder layers attended to",
    ]
    if shaded:
        words.append("shade, %: share of the layer's tokens")
    axes.text(x + unit * bar_scale + 0.1, y, "     ".join(words), size=7.5, color=MUTED, va="center_baseline")
    axes.axhline(0.42, color=FAINT, linewidth=0.6)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
