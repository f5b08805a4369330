"""The answer of a run in two sentences and a few figures: the winner beside the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from automoe.cost.costs import COSTS, THROUGHPUT
from automoe.report.shortfalls import SIGNIFICANT_P
from automoe.report.tables import Result


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the winner, in words. `compared`: the same of the baseline; empty without another."""

    name: str
    value: str
    compared: str


@dataclass(frozen=True, slots=True)
class Headline:
    """What a run found. `text`: whole sentences. `figures`: the most telling ones."""

    text: str
    figures: tuple[Figure, ...]


def headline(rows: Sequence[Result], main: str, reference: str, subject: str) -> Headline:
    """Sum up the rows of a table, which may be of several seeds: each figure is their mean.

    Args:
        main: the system that was looked for. `reference`: what it is compared with; the same where there is
            no other.
        subject: whose time a latency is, such as `a sentence`.
    """
    mine, others = ([row for row in rows if row.system == name] for name in (main, reference))
    if main == reference:
        text = f"{_bleu_of(mine, main)}. {_time_of(mine, subject)}."
    else:
        text = (
            f"{_bleu_of(mine, main)}, {_bleu_against(mine, others, reference)}. "
            f"{_time_of(mine, subject)}, {_time_against(mine, others, reference)}."
        )
    figures = [("BLEU", "{:.2f}", lambda row: row.bleu), ("chrF", "{:.2f}", lambda row: row.chrf)]
    figures += [
        (cost.heading, f"{{:{cost.digits}}}", _scaled(name))
        for name in ("latency_ms", THROUGHPUT, "flops", "active_parameters")
        for cost in [COSTS[name]]
    ]
    told = []
    for name, form, value in figures:
        means = [_mean(of, value) for of in (mine, others)]
        if means[0] is not None:
            known = main != reference and means[1] is not None
            told.append(
                Figure(name, form.format(means[0]), f"{reference}: {form.format(means[1])}" if known else "")
            )
    return Headline(text, tuple(told))


def _bleu_of(mine: Sequence[Result], main: str) -> str:
    seeds = f" on average of {len(mine)} seeds" if len(mine) > 1 else ""
    return f"{main} reaches {_mean(mine, lambda row: row.bleu):.2f} BLEU{seeds}"


def _bleu_against(mine: Sequence[Result], others: Sequence[Result], reference: str) -> str:
    gain = (_mean(mine, lambda row: row.bleu) or 0) - (_mean(others, lambda row: row.bleu) or 0)
    more = f"{abs(gain):.2f} {'more' if gain > 0 else 'less'} than" if abs(gain) >= 0.005 else "as much as"
    told = [row.p for row in sorted(mine, key=lambda row: row.seed) if row.p is not None]
    if not told:
        return f"{more} {reference}"
    significance = "" if max(told) <= SIGNIFICANT_P else "not significantly: "
    return f"{more} {reference} ({significance}p = {', '.join(f'{p:.2g}' for p in told)})"


def _time_of(mine: Sequence[Result], subject: str) -> str:
    cost = COSTS["latency_ms"]
    return f"{subject.capitalize()} takes {_mean(mine, _scaled(cost.name)):{cost.digits}} ms"


def _time_against(mine: Sequence[Result], others: Sequence[Result], reference: str) -> str:
    pairs = [(a, b) for a in mine for b in others if a.seed == b.seed]
    speed_up = fmean(b.costs["latency_ms"] / a.costs["latency_ms"] for a, b in pairs)
    flops = fmean(a.costs["flops"] / b.costs["flops"] for a, b in pairs)
    faster = f"{speed_up:.2f} times as fast as" if speed_up >= 1 else f"{1 / speed_up:.2f} times as long as"
    return f"{faster} {reference}, with {flops:.0%} of its FLOPs"


def _scaled(cost: str) -> Callable[[Result], float | None]:
    return lambda row: row.costs[cost] * COSTS[cost].scale if cost in row.costs else None


def _mean(rows: Sequence[Result], value: Callable[[Result], float | None]) -> float | None:
    known = [found for row in rows if (found := value(row)) is not None]
    return fmean(known) if known else None
