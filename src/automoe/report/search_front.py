"""The candidates that a run's searches scored, their winners and their front, for pictures of both kinds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from matplotlib.ticker import MaxNLocator

from automoe.cost.costs import COSTS, Cost
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
from automoe.report.seed_report import SeedReport
from automoe.search.candidate import Candidate, front, score_of
from automoe.search.log import CandidateLog, LogEntry


@dataclass(frozen=True)
class SearchFront:
    """What one seed's searches found.

    Attributes:
        logs: by searched system, what its search evaluated.
        winners: by searched system, the candidate that was trained as it, where a search scored it.
        costs: those that have a picture.
    """

    logs: Mapping[str, tuple[LogEntry, ...]]
    winners: Mapping[str, Candidate]
    costs: tuple[Cost, ...]

    @property
    def entries(self) -> tuple[LogEntry, ...]:
        """Those of all searches."""
        return tuple(entry for entries in self.logs.values() for entry in entries)

    def front(self, cost: Cost) -> tuple[Candidate, ...]:
        """The best score to be had at each cost, of candidates that keep their bounds."""
        feasible = [entry.candidate for entry in self.entries if entry.feasible]
        return front(feasible, cost.name, larger_is_better=cost.larger_is_better)


def search_front(report: SeedReport, main: str, sought: Collection[str]) -> SearchFront:
    """Read what the searches of a seed, of which there is one at least, evaluated.

    Args:
        main: the system whose winner says which costs are known: without a bound on the latency, no
            candidate's is. `sought`: costs that a search had a bound on, or among its objectives.
    """
    logs = {name: CandidateLog(path).entries for name, path in report.logs.items()}
    known = {
        entry.candidate.architecture: entry.candidate
        for entries in logs.values()
        for entry in entries
        if entry.candidate.score is not None
    }
    winners = {
        name: known[architecture] for name in logs if (architecture := report.architecture(name)) in known
    }
    costs = [
        cost
        for cost in COSTS.values()
        if cost.name in winners[main].costs and cost.name in ("latency_ms", "flops", *sought)
    ]
    return SearchFront(logs, winners, tuple(costs))


def front_plain(found: SearchFront, score_label: str) -> dict[str, Any]:
    """What the page draws of it, as JSON values: every scored candidate, its costs and its architecture.

    Args:
        score_label: what the score is; lower is better.
    """
    scored = [entry for entry in found.entries if entry.candidate.score is not None]
    place = {id(entry.candidate): index for index, entry in enumerate(scored)}
    shown = [cost for cost in COSTS.values() if any(cost.name in entry.candidate.costs for entry in scored)]
    return {
        "scoreLabel": score_label,
        "scoreTicks": _ticks([score_of(entry.candidate) for entry in scored]),
        "costs": [{"name": cost.name, "heading": cost.heading} for cost in shown],
        "pictures": [
            {
                "cost": shown.index(cost),
                "label": cost.label,
                "ticks": _ticks(
                    [_shown(cost, e.candidate) for e in scored if cost.name in e.candidate.costs]
                ),
                "front": [place[id(candidate)] for candidate in found.front(cost)],
            }
            for cost in found.costs
        ],
        "candidates": [
            {
                "system": entry.search.system,
                "feasible": entry.feasible,
                "score": round(score_of(entry.candidate), 4),
                "costs": [
                    _shown(cost, entry.candidate) if cost.name in entry.candidate.costs else None
                    for cost in shown
                ],
                "architecture": architecture_plain(entry.candidate.architecture),
            }
            for entry in scored
        ],
        "winners": {name: place[id(candidate)] for name, candidate in found.winners.items()},
    }


def architecture_plain(architecture: Architecture) -> list[dict[str, Any]]:
    """What the page draws of an architecture, as JSON values: its stacks, first layer to last."""
    return [
        {
            "stack": stack,
            "width": layers[0].width,
            "layers": [_layer_plain(layer) for layer in layers],
        }
        for stack in STACKS
        if (layers := architecture.layers(stack))
    ]


def _layer_plain(layer: Layer) -> dict[str, Any]:
    attentions: list[str] = []
    for sublayer in layer.sublayers:
        match sublayer:
            case SelfAttention(heads):
                attentions.append(f"self: {_count(heads, 'head')}")
            case AverageAttention():
                attentions.append("average attention")
            case Ssru():
                attentions.append("SSRU")
            case CrossAttention(heads, attended):
                over = "the last encoder layer" if attended == 1 else f"the last {attended} encoder layers"
                attentions.append(f"cross: {_count(heads, 'head')}, over {over}")
            case FeedForward():
                pass
            case _:
                assert_never(sublayer)
    ffn = layer.feed_forward
    return {"attentions": attentions, "experts": list(ffn.ffn_sizes), "topK": ffn.top_k}


def _shown(cost: Cost, candidate: Candidate) -> float:
    """In the unit of the heading."""
    return float(f"{candidate.costs[cost.name] * cost.scale:.4g}")


def _ticks(values: list[float]) -> list[float]:
    """Round numbers whose first and last enclose all values."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [float(tick) for tick in MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
