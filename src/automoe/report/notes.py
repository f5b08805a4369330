"""What a report says in words below its table, as `results.md` and the page have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from automoe.cost.costs import COSTS
from automoe.design.architecture import Architecture, Expert
from automoe.errors import validate_plain
from automoe.report.seed_report import SeedReport
from automoe.search.winner import AgainstBound, Measured

CAPACITY_NATS = 0.05
"""By how much the largest FFNs must beat the smallest for a regime in which experts can matter."""


def findings(report: SeedReport, reference: str) -> Iterator[str]:
    """What searches, races and comparisons say, that capacity matters where it does, unused experts."""
    for system, chosen in report.searches.items():
        found = report.found(system)
        if found.get("measured"):
            yield budget_note(system, found, len(chosen["rejected"]))
    for system, race in report.races.items():
        yield race_note(system, race)
    for (other, system), compared in report.compared.items():
        if other != reference or report.twins.get(system) == other:
            yield f"{system} against {other}: {compared.bleu_difference:+.2f} BLEU, p = {compared.p:.2g}."
    yield from (text for matters, text in capacity(report) if matters)
    yield from unused_experts(report)


def unused_experts(report: SeedReport) -> Iterator[str]:
    """Of each system whose test text sent no token to some expert with weights: which, and the mend."""
    for system, result in report.results.items():
        unused = names_of_unused(report.architecture(system), result["routing_shares"] or {})
        if unused:
            yield (
                f"{system}: no token of the test set went to {', '.join(unused)}; `automoe prune` makes a "
                "model to deploy without the experts that validation text does not use either."
            )


def names_of_unused(architecture: Architecture, shares: Mapping[str, Sequence[float]]) -> list[str]:
    """In words, the experts with weights that got no token.

    Args:
        shares: by name of a mixture layer, those of its tokens that each expert got.
    """
    return [
        f"{layer.name}'s expert {expert + 1} of {len(layer.feed_forward.experts)}"
        for layer in architecture.layers()
        for expert, size in enumerate(layer.feed_forward.ffn_sizes)
        if size and layer.name in shares and not shares[layer.name][expert]
    ]


def race_note(system: str, race: Mapping[str, Any]) -> str:
    """What the finals of a system changed, and what they cost.

    "Saved" is against training every finalist to the end.
    """
    winner, judged = race["finalists"].index(race["winner"]), race["judged"]
    last = max(j["step"] for j in judged if j["finalist"] == winner)
    losses = {j["finalist"]: j["loss"] for j in judged if j["step"] == last and j["loss"] is not None}
    others = sorted(loss for finalist, loss in losses.items() if finalist != winner)
    whole = len(race["finalists"]) - 1
    price = race["lost_steps"] / race["steps"]
    text = f"{system}: finals of {whole + 1}: the search's number {winner + 1} won"
    if others:
        text += f", {others[0] - losses[winner]:.3f} nats before the next"
    first = {j["finalist"]: j["loss"] for j in judged if j["finalist"] == 0 and j["loss"] is not None}
    if winner and first:
        step = max(j["step"] for j in judged if j["finalist"] == 0 and j["loss"] is not None)
        own = next(j["loss"] for j in judged if j["finalist"] == winner and j["step"] == step)
        text += f" (the search's first was {first[0] - own:.3f} behind it at step {step:,})"
    return f"{text}; the others took {price:.2f} trainings, {whole - price:.1f} less than to train them all."


def capacity(report: SeedReport) -> Iterator[tuple[bool, str]]:
    """Whether FFNs matter in this regime, and why, where two dense systems differ in their sizes alone."""
    trained = {
        name: (report.architecture(name), result["training"]["validation"]["valid"])
        for name, result in report.results.items()
        if "validation" in result["training"] and name not in report.twins  # taught, so not comparable
    }
    pairs = 0
    for name, (large, loss) in trained.items():
        for other, (small, worse) in trained.items():
            if not _differ_in_ffn_sizes_alone(small, large):
                continue
            pairs += 1
            gain = worse - loss
            matters = gain >= CAPACITY_NATS
            verdict = "capacity matters here" if matters else "capacity does NOT matter here"
            yield (
                matters,
                f"{verdict}: {name}, with larger FFNs than {other}, ends {gain:+.3f} nats better on "
                f"validation text; {CAPACITY_NATS} are asked for.",
            )
    if report.searches and not pairs:
        yield (
            False,
            "whether capacity matters here was not checked: no two dense systems differ in their FFNs' sizes "
            "alone.",
        )


def _differ_in_ffn_sizes_alone(small: Architecture, large: Architecture) -> bool:
    """Whether two dense architectures are alike but for larger FFNs in every layer of the second."""
    layers = [(*a.encoder, *a.decoder) for a in (small, large)]
    return (
        _with_small_ffns(small) == _with_small_ffns(large)
        and small.is_dense
        and large.is_dense
        and all(s.ffn_sizes[0] < b.ffn_sizes[0] for s, b in zip(*layers, strict=True))
    )


def _with_small_ffns(architecture: Architecture) -> Architecture:
    """The architecture with one expert of size 1 in every layer."""
    return replace(
        architecture,
        encoder=tuple(replace(layer, experts=(Expert(1),), top_k=1) for layer in architecture.encoder),
        decoder=tuple(replace(layer, experts=(Expert(1),), top_k=1) for layer in architecture.decoder),
    )


def budget_note(system: str, found: Mapping[str, Any], rejected: int = 0) -> str:
    """How a winner stood against its bounds on measured costs.

    Args:
        found: what `chosen.json` says of it. `rejected`: how many others broke the budget when measured.
    """
    costs = found["costs"]
    measured = validate_plain(Measured, found["measured"], f"{system}: what was measured of it is damaged")
    shown = {figure.cost for figure in measured.figures}
    others = [name for name in measured.bounded_beside_latency if name not in shown]
    text = f"{system}: at the end of the search, "
    if "latency_ms" in costs:
        text += f"{costs['latency_ms']:.1f} ms were predicted, {measured.latency_ms:.1f} measured"
    else:
        text += f"{measured.latency_ms:.1f} ms were measured"
    if not measured.judged:
        text += " here, which is not the device of the budget"
    if measured.maximum_ms is not None:
        text += f", {measured.maximum_ms:.1f} allowed"
    for figure in measured.figures:
        text += f"; {_with_bound(figure, costs.get(figure.cost))}"
    if others:
        text += f"; the bound on {', '.join(others)} is kept"
    if rejected:
        text += f"; {rejected} with a good score broke the budget when measured"
    return f"{text}; {measured.noise}." if measured.noise else f"{text}."


def _with_bound(figure: AgainstBound, predicted: float | None) -> str:
    """One cost as it was predicted, measured and bounded, in the unit of its heading."""
    cost = COSTS[figure.cost]

    def shown(value: float) -> str:
        return format(value * cost.scale, cost.digits)

    told = [f"{shown(predicted)} predicted"] if predicted is not None else []
    limit = "at least" if cost.larger_is_better else "at most"
    told += [f"{shown(figure.measured)} measured", f"{limit} {shown(figure.bound)} asked for"]
    return f"{cost.heading}: {', '.join(told)}"
