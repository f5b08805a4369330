"""The paper's analyses of what was found (AutoMoE, arXiv 2210.07535, section 4).

Where the experts are, how the cost is divided between encoder and decoder, and what the search took.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from automoe.cost.counting import count
from automoe.cost.device.profile import LatencyParts
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import STACKS, Architecture, Stack
from automoe.errors import InputError
from automoe.report.style import BLUE, INK, STYLE, VERMILLION, save, tint
from automoe.report.tables import MISSING, Table

_STACK_COLOUR: dict[Stack, str] = {"encoder": BLUE, "decoder": VERMILLION}


@dataclass(frozen=True, slots=True)
class LayerExperts:
    """How many experts the layers of one index have, over the architectures that have such a layer.

    Attributes:
        mean, least, most: experts; a dense layer has one.
        architectures: how many have this layer.
    """

    mean: float
    least: int
    most: int
    architectures: int


@dataclass(frozen=True, slots=True)
class ExpertCounts:
    """The experts a layer of several architectures, by stack, first layer to last."""

    encoder: tuple[LayerExperts, ...]
    decoder: tuple[LayerExperts, ...]

    def of(self, stack: Stack) -> tuple[LayerExperts, ...]:
        """Those of one stack."""
        return self.encoder if stack == "encoder" else self.decoder


@dataclass(frozen=True, slots=True)
class StackSplit:
    """An amount of the encoder, and that of the decoder, in one unit."""

    encoder: float
    decoder: float

    @property
    def encoder_share(self) -> float:
        """Of the sum of both, 0 to 1."""
        return self.encoder / (self.encoder + self.decoder)


@dataclass(frozen=True, slots=True)
class EncoderShare:
    """How an architecture is divided between its stacks.

    Attributes:
        experts: number of experts, over all layers; a dense layer has one.
        parameters: by the papers' accounting (`automoe.cost.counting`), of the layers.
        flops: likewise; expected, each expert of a layer equally likely.
        latency_ms: predicted, of the stacks with all that belongs to no layer; None without a prediction.
    """

    experts: StackSplit
    parameters: StackSplit
    flops: StackSplit
    latency_ms: StackSplit | None = None


def expert_counts(architectures: Sequence[Architecture]) -> ExpertCounts:
    """Count the experts of every layer over several architectures, such as a search's best candidates.

    Raises:
        InputError: there are no architectures.
    """
    if not architectures:
        raise InputError("no experts to count", ["there are no architectures: give at least one"])
    encoder, decoder = (_layer_experts(architectures, stack) for stack in STACKS)
    return ExpertCounts(encoder, decoder)


def draw_expert_counts(counts: ExpertCounts, path: str | Path) -> Figure:
    """Draw the experts a layer of both stacks (after the paper's Figure 3); write the picture to `path`.

    A bar is the mean, the line over it goes from the least to the most; below the number of the layer, from
    1, how many of the architectures have it.

    Raises:
        InputError: the folder is missing, or the disk is full.
    """
    layers = max(len(counts.encoder), len(counts.decoder))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(5.6, 2.4 + 0.9 * layers), 3.4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True, width_ratios=[len(counts.of(stack)) for stack in STACKS])
        for axes, stack in zip(panels, STACKS, strict=True):
            colour = _STACK_COLOUR[stack]
            of_stack = counts.of(stack)
            for number, layer in enumerate(of_stack, start=1):
                name = f"{stack}.{number - 1}"
                axes.bar(number, layer.mean, 0.62, color=tint(colour, 0.6), gid=f"mean:{name}")
                axes.plot(
                    [number, number], [layer.least, layer.most], color=INK, linewidth=1.2, marker="_",
                    markersize=7, gid=f"spread:{name}",
                )  # fmt: skip
            labels = [f"{n}\n({layer.architectures})" for n, layer in enumerate(of_stack, start=1)]
            axes.set_xticks(range(1, len(of_stack) + 1), labels)
            axes.set_xlim(0.4, len(of_stack) + 0.6)
            axes.grid(axis="x", visible=False)
            axes.set_title(stack)
        panels[0].set_ylim(bottom=0)
        panels[0].yaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].set_ylabel("experts a layer: mean, least to most")
        figure.supxlabel("layer (architectures that have it)", size="medium")
        save(figure, path)
    return figure


def encoder_share(
    architecture: Architecture,
    parts: LatencyParts | None = None,
    protocol: MeasuringProtocol | None = None,
) -> EncoderShare:
    """Divide experts, parameters, FLOPs and, where it is predicted, time between encoder and decoder.

    What an architecture's layer counts is what one more such layer adds. So embeddings, their scaling and a
    last layer norm count to neither stack; attention over the encoder, its keys and values included, counts
    to the decoder. In time, keys and values count where the device computes them.

    Args:
        parts: what a device profile predicts of this architecture (`DeviceProfile.predict`).
        protocol: lengths and norm, for the FLOPs; by default the papers'.
    """
    a = architecture
    own = count(a, protocol)
    larger: dict[Stack, list[Architecture]] = {
        "encoder": [replace(a, encoder=(*a.encoder, layer)) for layer in a.encoder],
        "decoder": [replace(a, decoder=(*a.decoder, layer)) for layer in a.decoder],
    }
    counts = {stack: [count(one_more, protocol) for one_more in larger[stack]] for stack in STACKS}
    return EncoderShare(
        experts=StackSplit(
            *(sum(len(layer.feed_forward.experts) for layer in a.layers(stack)) for stack in STACKS)
        ),
        parameters=StackSplit(
            *(sum(more.parameters - own.parameters for more in counts[stack]) for stack in STACKS)
        ),
        flops=StackSplit(*(sum(more.flops - own.flops for more in counts[stack]) for stack in STACKS)),
        latency_ms=None if parts is None else StackSplit(parts.encoder_ms, parts.decoder_ms),
    )


def stacks_table(shares: Mapping[str, EncoderShare]) -> Table:
    """How each system is divided between its stacks: encoder / decoder."""
    rows = tuple((system, *_share_cells(share)) for system, share in shares.items())
    return Table(("system", "experts", "parameters", "FLOPs", "time"), rows)


STACKS_NOTE = (
    "Share of the encoder / of the decoder. Parameters and FLOPs by the papers' accounting, of the layers, "
    "for experts equally likely; time as predicted, the decoder's with the output layer."
)
"""What the table of the stacks shows."""


def minutes_table(minutes: Mapping[str, float]) -> Table:
    """The minutes by what they went to; their sum is the last row.

    Raises:
        InputError: listing all minutes that are negative or not finite.
    """
    problems = [
        f"{name}: {value} minutes; give a finite time of at least 0"
        for name, value in minutes.items()
        if not (math.isfinite(value) and value >= 0)
    ]
    if problems:
        raise InputError("there is no table of these times", problems)
    rows = [*minutes.items(), ("all together", math.fsum(minutes.values()))]
    return Table(("step", "minutes"), tuple((name, f"{value:.1f}") for name, value in rows))


def analyses_markdown(shares: Mapping[str, EncoderShare], minutes: Mapping[str, float]) -> str:
    """Write the section: a table of the stacks' shares, and one of the minutes that the search took.

    Args:
        shares: by system. `minutes`: wall time by what it went to: supernet, search, finals, the training
            of each system. Where one of them is empty, its table is left out.

    Raises:
        InputError: as `minutes_table`.
    """
    tables = []
    if shares:
        tables.append(f"### Encoder and decoder\n\n{STACKS_NOTE}\n\n{stacks_table(shares).markdown()}")
    if minutes:
        tables.append(f"### Cost of the search\n\n{minutes_table(minutes).markdown()}")
    return "\n".join(tables)


def _layer_experts(architectures: Sequence[Architecture], stack: Stack) -> tuple[LayerExperts, ...]:
    counts = [[len(layer.feed_forward.experts) for layer in a.layers(stack)] for a in architectures]
    by_layer = ([n for n in column if n is not None] for column in zip_longest(*counts))
    return tuple(LayerExperts(fmean(found), min(found), max(found), len(found)) for found in by_layer)


def _share_cells(share: EncoderShare) -> list[str]:
    splits = (share.experts, share.parameters, share.flops, share.latency_ms)
    return [
        MISSING if split is None else f"{split.encoder_share:.0%} / {1 - split.encoder_share:.0%}"
        for split in splits
    ]
