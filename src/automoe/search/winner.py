"""The end of a search with a bound on a measured cost: its best candidate is measured before it wins.

Candidates were priced by a prediction or a short measurement, and the best ones stand close to the bound.
So they are measured for real, in order of score, until one keeps the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate, score_of

MOST_TRIES = 20
"""Candidates that are measured, at most."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One architecture as it was measured: its latency, the most that may be, and what else it breaks.

    Attributes:
        latency_ms: measured with the runs of a figure to report.
        maximum_ms: the most the latency may be; when that is a share of `reference_ms`, the share of the
            measured one. None when there is no bound on the latency that can be judged here.
        reference_ms: of the largest dense architecture, measured side by side; None for a budget in ms.
        noise: why the figure should not be believed; None when it may be.
        broken: bounds on other measured costs that were measured too and are broken, in words.
        bounded: names of the measured costs whose bounds were judged; records of older versions lack it.
    """

    latency_ms: float
    maximum_ms: float | None
    reference_ms: float | None = None
    noise: str | None = None
    broken: tuple[str, ...] = ()
    bounded: tuple[str, ...] = ()

    @property
    def judged(self) -> bool:
        """False when the budget is of another device: then the figure is only for the record."""
        limits = (self.maximum_ms, self.reference_ms)
        return bool(self.bounded or self.broken) or any(limit is not None for limit in limits)

    @property
    def bounded_beside_latency(self) -> tuple[str, ...]:
        """Names of the other measured costs whose bounds were judged."""
        return tuple(name for name in self.bounded if name != "latency_ms")

    @property
    def holds(self) -> bool:
        """Whether what was measured keeps the budget, as far as it can be judged."""
        return not self.broken and (self.maximum_ms is None or self.latency_ms <= self.maximum_ms)

    def __str__(self) -> str:
        told = [f"measured {self.latency_ms:,.4g} ms"]
        if not self.judged:
            told.append("on another device")
        if self.maximum_ms is not None:
            told.append(f"allowed {self.maximum_ms:,.4g} ms")
        if self.bounded_beside_latency and not self.broken:
            told.append(f"keeps the bound on {', '.join(self.bounded_beside_latency)}")
        return ", ".join([*told, *self.broken])


MeasureCandidate = Callable[[Architecture], Measured]


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate, with the latency it was searched by among its costs, and as it was measured."""

    candidate: Candidate
    measured: Measured

    def __str__(self) -> str:
        return f"predicted {self.candidate.costs['latency_ms']:,.4g} ms, {self.measured}"


@dataclass(frozen=True, slots=True)
class Winner:
    """The best candidate that keeps its budget when measured, and the better ones that did not."""

    trial: Trial
    rejected: tuple[Trial, ...]


def measured_winner(candidates: Sequence[Candidate], measure: MeasureCandidate) -> Winner:
    """Measure candidates in order of score (of equals the first given) until one keeps its budget.

    Args:
        candidates: at least one; feasible and scored, so with a `latency_ms` among their costs.
        measure: called at most `MOST_TRIES` times, each time with another architecture.

    Raises:
        InputError: none of the candidates that were measured keeps it; lists each one's figures.
    """
    rejected: list[Trial] = []
    for candidate in sorted(candidates, key=score_of)[:MOST_TRIES]:
        trial = Trial(candidate, measure(candidate.architecture))
        if trial.measured.holds:
            return Winner(trial, tuple(rejected))
        rejected.append(trial)
    mend = "make the device profile again on a quiet machine"
    if any(trial.measured.maximum_ms is not None for trial in rejected):
        mend += ", or raise search.constraints.latency_ms"
    if any(trial.measured.broken for trial in rejected):
        names = dict.fromkeys(name for trial in rejected for name in trial.measured.bounded_beside_latency)
        mend += ", or relax the other bounds that were broken" + (f" ({', '.join(names)})" if names else "")
    raise InputError(
        f"none of the {len(rejected)} best candidates keeps the budget when it is measured",
        [
            *(f"{trial.candidate.architecture}: {trial}" for trial in rejected),
            *dict.fromkeys(trial.measured.noise for trial in rejected if trial.measured.noise),
            mend,
        ],
    )
