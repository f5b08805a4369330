"""Where a search's latencies come from: a device profile, a learned predictor, or measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from automoe.cost.costs import (
    COSTS,
    THROUGHPUT,
    Bound,
    Conditions,
    LatencyMs,
    Together,
    constraints_of,
    share_of,
)
from automoe.cost.device.profile import load_profile
from automoe.cost.latency_settings import LatencySettings, ThroughputSettings
from automoe.cost.machine import this_machine
from automoe.cost.measure import (
    FEWEST_RUNS,
    Latency,
    measure_latency,
    measure_together,
    random_engine,
    why_noisy,
)
from automoe.cost.predictor import load_predictor
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.search.constraint import violations
from automoe.search.winner import AgainstBound, Measured

if TYPE_CHECKING:
    from automoe.model.transformer import Transformer


def latency_source(
    protocol: MeasuringProtocol, settings: LatencySettings, file: Path | None, say: Callable[[str], None]
) -> LatencyMs:
    """What a search prices latencies by.

    Args:
        file: the profile or predictor; None for measuring on this machine, `search_runs` times each; asked
            again for the architecture it measured last, that source knows.
        say: hears what makes the figures doubtful.

    Raises:
        InputError: the file cannot be used, or is of conditions that make its figures meaningless here.
    """
    if file is None:
        # Every bounded cost that follows from an architecture's latency asks for it, one after another.
        @lru_cache(maxsize=1)
        def measure(architecture: Architecture) -> float:
            engine = random_engine(architecture, protocol)
            return measure_latency(engine, protocol, runs=settings.search_runs).latency_ms

        return measure
    if settings.source == "predictor":
        return load_predictor(file).predict
    profile = load_profile(file)
    for warning in profile.problems_with(protocol):
        say(f"  {file}: {warning}")
    return lambda architecture: profile.predict(architecture).latency_ms


def is_of_another_machine(settings: LatencySettings, file: Path | None) -> bool:
    """Whether `file` is a device profile of another processor than this machine's.

    A predictor does not say which device it is of; it is taken to be this one.

    Raises:
        InputError: the profile cannot be read.
    """
    if file is None or settings.source == "predictor":
        return False
    return load_profile(file).machine.cpu != this_machine(settings.backend).cpu


def measure_batches(
    protocol: MeasuringProtocol,
    settings: ThroughputSettings,
    subjects: Mapping[str, Transformer] | Mapping[str, Architecture],
) -> dict[str, Latency]:
    """The time of a server's batch, as `measure_together`; `protocol` is the latency's.

    A batch takes long, so models take turns after few.
    """
    protocol = replace(protocol, batch=settings.batch)
    return measure_together(protocol, subjects, settings.runs, runs_a_round=FEWEST_RUNS)


def measure_against_budget(
    protocol: MeasuringProtocol,
    settings: LatencySettings,
    bounds: Mapping[str, Bound],
    architecture: Architecture,
    baseline: Architecture,
    *,
    judged: bool = True,
) -> Measured:
    """One architecture measured with `settings.runs`, and what the bounds on measured costs allow it.

    With a bound on the throughput, and `settings.throughput`, such batches are measured as well.

    A bound that is a share is the share of `baseline` measured in the same rounds: both models get
    random weights, and the machine's drift.

    Args:
        bounds: of the recipe; those on counted costs do not matter here.
        judged: False when the budget is of another machine, so that this one cannot say if it is kept.
    """
    bounds = {name: bound for name, bound in bounds.items() if COSTS[name].measured and judged}
    subjects = {"candidate": architecture}
    if any(share_of(bound) is not None for bound in bounds.values()):
        subjects["reference"] = baseline
    measured = measure_together(protocol, subjects, settings.runs)
    server = settings.throughput if THROUGHPUT in bounds else None
    batches = measure_batches(protocol, server, subjects) if server else {}

    def as_measured(name: str, subject: str) -> float:
        together = Together(server.batch, lambda _: batches[subject].latency_ms) if server else None
        conditions = Conditions(protocol, lambda _: measured[subject].latency_ms, together)
        return COSTS[name].price(subjects[subject], conditions)

    limits = {
        name: float(bound) if (share := share_of(bound)) is None else share * as_measured(name, "reference")
        for name, bound in bounds.items()
    }
    maximum_ms = limits.pop("latency_ms", None)
    costs = {name: as_measured(name, "candidate") for name in limits}
    return Measured(
        latency_ms=measured["candidate"].latency_ms,
        maximum_ms=maximum_ms,
        reference_ms=measured["reference"].latency_ms if "reference" in measured else None,
        noise=why_noisy(*measured.values(), *batches.values()),
        broken=tuple(
            f"{constraint}, but it is {costs[constraint.cost]:,.6g} {COSTS[constraint.cost].unit}"
            for constraint in violations(constraints_of(limits), costs)
        ),
        bounded=tuple(bounds),
        figures=tuple(AgainstBound(name, costs[name], limit) for name, limit in limits.items()),
    )
