"""The table of costs. A constraint is a cost and a bound; logs, reports, pictures and commands read this.

A new cost is one row of `COSTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

from automoe.cost.counting import Counts, count
from automoe.cost.download import download_bytes
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.constraint import Constraint, parse_constraints
from automoe.search.evaluator import Price

LatencyMs: TypeAlias = Callable[[Architecture], float]
"""The latency of an architecture by one source; InputError when that source cannot tell."""

THROUGHPUT = "throughput_sentences_s"

Bound: TypeAlias = float | str
"""A number in the unit of the cost, or a share such as `75%` of what a reference costs."""


@dataclass(frozen=True, slots=True)
class Together:
    """Sentences that a server translates together: how many, and what tells the time of such a batch."""

    batch: int
    batch_ms: LatencyMs


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which an architecture has a cost.

    Attributes:
        protocol: lengths, beam, vocabulary, norm, batch, and the engine.
        latency_ms: tells latencies; None where nothing does, and nothing that goes by them has a price.
        together: what throughput goes by; None: by the latency, and the protocol's batch.
    """

    protocol: MeasuringProtocol
    latency_ms: LatencyMs | None = None
    together: Together | None = None

    def counts(self, architecture: Architecture) -> Counts:
        """Everything that is counted."""
        return _counts(architecture, self.protocol)

    def latency(self, architecture: Architecture) -> float:
        """The latency in ms.

        Raises:
            InputError: there is no source, or it cannot tell.
        """
        if self.latency_ms is None:
            raise InputError(f"the latency of {architecture} is not known", ["no source was given"])
        return self.latency_ms(architecture)

    def throughput(self, architecture: Architecture) -> float:
        """Sentences a second, of batches one after another.

        Raises:
            InputError: as `latency`.
        """
        if self.together is not None:
            return 1000 * self.together.batch / self.together.batch_ms(architecture)
        return 1000 * self.protocol.batch / self.latency(architecture)


@dataclass(frozen=True, slots=True)
class Cost:
    """One row of the table.

    Attributes:
        name: with the unit the value has, e.g. `latency_ms`; in recipes, logs and files.
        unit: of the value, for people, e.g. `ms`.
        heading: for people, in a table, with the unit it is shown in. `label`: the same on an axis.
        scale: from the unit of the value to that of heading and label.
        digits: how a scaled value is written, as in `format`.
        price: the value for an architecture under conditions.
        measured: it takes a device, or what is known of one; otherwise it is counted in no time.
        larger_is_better: a bound on it is the least it may be, not the most.
        of_engine: it is counted, but depends on the protocol's engine, too; a search counts it only where it
            has a bound on it.
    """

    name: str
    unit: str
    heading: str
    label: str
    scale: float
    digits: str
    price: Callable[[Architecture, Conditions], float]
    measured: bool = False
    larger_is_better: bool = False
    of_engine: bool = False


COSTS: dict[str, Cost] = {
    cost.name: cost
    for cost in (
        Cost(
            "latency_ms", "ms", "latency (ms)", "latency (ms)", 1.0, ".1f",
            lambda a, conditions: conditions.latency(a), measured=True,
        ),
        Cost(
            THROUGHPUT, "sentences/s", "sentences/s", "sentences a second", 1.0, ".1f",
            lambda a, c: c.throughput(a), measured=True, larger_is_better=True,
        ),
        Cost("flops", "FLOPs", "GFLOPs", "GFLOPs a sentence", 1e-9, ".3g", lambda a, c: c.counts(a).flops),
        Cost(
            "parameters", "parameters", "parameters (M)", "parameters (millions)", 1e-6, ".2f",
            lambda a, c: c.counts(a).parameters,
        ),
        Cost(
            "active_parameters", "parameters", "active (M)", "active parameters (millions)", 1e-6, ".2f",
            lambda a, c: c.counts(a).active_parameters,
        ),
        Cost(
            "memory_bytes", "bytes", "memory (MiB)", "memory (MiB)", 2.0**-20, ".0f",
            lambda a, c: c.counts(a).memory_bytes,
        ),
        Cost(
            "download_bytes", "bytes", "download (MB)", "download (MB)", 1e-6, ".2f",
            lambda a, c: download_bytes(a, c.protocol), of_engine=True,
        ),
    )
}  # fmt: skip
"""Every cost by name."""


def prices(conditions: Conditions, named: Collection[str] = ()) -> dict[str, Price]:
    """What a search prices its candidates by.

    Args:
        named: the costs to be priced among those that depend on an engine, be they measured or counted; all
            others are.
    """
    return {
        cost.name: Price(partial(_price, cost, conditions), cost.measured)
        for cost in COSTS.values()
        if cost.name in named or not (cost.measured or cost.of_engine)
    }


def constraints_of(bounds: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Bounds on costs of the table: the most each may be, or the least where larger is better.

    Raises:
        InputError: listing every unknown cost and every bound that is no positive finite number.
    """
    return parse_constraints(bounds, {cost.name: cost.larger_is_better for cost in COSTS.values()})


def check_bounds(bounds: Mapping[str, Bound]) -> None:
    """Whether there are such costs, and such bounds; shares, too.

    Raises:
        InputError: as `constraints_of`.
    """
    constraints_of(
        {name: float(bound) if (s := share_of(bound)) is None else s for name, bound in bounds.items()}
    )


def share_of(bound: Bound) -> float | None:
    """0.75 for the bound `75%`; None for one in the cost's own unit."""
    return float(bound.rstrip("%")) / 100 if isinstance(bound, str) else None


def measured_names(bounds: Collection[str]) -> tuple[str, ...]:
    """The costs among those bounded that take a device."""
    return tuple(name for name in bounds if COSTS[name].measured)


def _price(cost: Cost, conditions: Conditions, architecture: Architecture) -> float:
    return float(cost.price(architecture, conditions))


# The counted costs of an architecture are asked for one after another.
@lru_cache(maxsize=1)
def _counts(architecture: Architecture, protocol: MeasuringProtocol) -> Counts:
    return count(architecture, protocol)
