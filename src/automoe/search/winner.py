"""The end of a search with a bound on a measured cost: its best candidates are measured before they win.

Candidates were priced by a prediction or a short measurement, and the best ones stand close to the bound.
So they are measured for real, until as many as are wanted keep the budget. Of many predictions the best are
those that err to the good side, so those measured soon say how far off such predictions are: a candidate that
would break the budget if it were as far off is measured only when there are no others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate, score_of

MOST_TRIES = 20
"""Candidates that are measured, at most."""
FEWEST_ERRORS = 3
"""Candidates of which the middle one says how far off predictions are, at least."""


@dataclass(frozen=True, slots=True)
class AgainstBound:
    """A cost by name, as it was measured, and the bound on it; of a share, beside the baseline."""

    cost: str
    measured: float
    bound: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One architecture as it was measured: its latency, the most that may be, and what else it breaks.

    Attributes:
        latency_ms: measured with the runs of a figure to report.
        maximum_ms: the most the latency may be; when that is a share of `reference_ms`, the share of the
            measured one. None when there is no bound on the latency that can be judged here.
        reference_ms: of the baseline, measured side by side; None for a budget in ms.
        noise: why the figure should not be believed; None when it may be.
        broken: bounds on other measured costs that were measured too and are broken, in words.
        bounded: names of the measured costs whose bounds were judged; records of older versions lack it.
        figures: of those beside the latency, how each stands against its bound; lacking likewise.
    """

    latency_ms: float
    maximum_ms: float | None
    reference_ms: float | None = None
    noise: str | None = None
    broken: tuple[str, ...] = ()
    bounded: tuple[str, ...] = ()
    figures: tuple[AgainstBound, ...] = ()

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
            told.append(
                f"keeps the bound on {', '.join(map(self._with_figures, self.bounded_beside_latency))}"
            )
        return ", ".join([*told, *self.broken])

    def _with_figures(self, name: str) -> str:
        known = [f"{f.measured:,.4g}, bound {f.bound:,.4g}" for f in self.figures if f.cost == name]
        return f"{name} ({known[0]})" if known else name


MeasureCandidate = Callable[[Architecture], Measured]


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate, with the costs it was searched by, and as it was measured, if a bound asks for it."""

    candidate: Candidate
    measured: Measured | None

    def __str__(self) -> str:
        text = f"{score_of(self.candidate):.3f} with {self.candidate.architecture}"
        if self.measured is None:
            return text
        costs = self.candidate.costs
        told = [f"{costs['latency_ms']:,.4g} ms"] if "latency_ms" in costs else []
        told += [f"{f.cost} {costs[f.cost]:,.4g}" for f in self.measured.figures if f.cost in costs]
        predicted = [f"predicted {', '.join(told)}"] if told else []
        return f"{text}; {', '.join([*predicted, str(self.measured)])}"

    def errors(self) -> dict[str, float]:
        """By cost, the share of its bound that was measured, divided by the cost it was searched by."""
        measured, costs = self.measured, self.candidate.costs
        if measured is None:
            return {}
        shares = {figure.cost: figure.measured / figure.bound for figure in measured.figures}
        if measured.maximum_ms is not None:
            shares["latency_ms"] = measured.latency_ms / measured.maximum_ms
        return {name: share / costs[name] for name, share in shares.items() if name in costs}


@dataclass(frozen=True, slots=True)
class Finalists:
    """The best candidates that keep their budget when measured, and the good ones that did not."""

    kept: tuple[Trial, ...]
    rejected: tuple[Trial, ...]


Choose = Callable[[Sequence[Candidate]], Sequence[Candidate]]
"""Which of the candidates should race; at least one of at least one."""


def measured_finalists(
    candidates: Sequence[Candidate],
    choose: Choose,
    measure: MeasureCandidate | None,
    at_least: Collection[str] = (),
) -> Finalists:
    """Choose finalists, measure them, and choose again without those that break the budget.

    Args:
        candidates: at least one; feasible and scored; with `measure`, also with those costs that have bounds
            and are measured.
        measure: asked once an architecture, of at most `MOST_TRIES`; None without a bound on a measured cost.
        at_least: the costs whose bound is from below.

    Returns:
        At least one that is kept, in the order `choose` gives; fewer than it asks for when the others break
        the budget, or were too many to measure.

    Raises:
        InputError: none of the candidates that were measured keeps the budget; lists each one's figures.
    """
    if measure is None:
        return Finalists(tuple(Trial(candidate, None) for candidate in choose(candidates)), ())
    tried: dict[Architecture, Trial] = {}
    pool = list(candidates)
    while pool:
        wanted, likely = choose(pool), _likely(pool, tried, at_least)
        chosen = choose(likely) if likely else wanted
        if len(chosen) < len(wanted) and all(c.architecture in tried for c in chosen):
            chosen = wanted
        untried = [c for c in chosen if c.architecture not in tried]
        for candidate in untried[: MOST_TRIES - len(tried)]:
            tried[candidate.architecture] = Trial(candidate, measure(candidate.architecture))
        kept = [trial for c in chosen if (trial := tried.get(c.architecture)) and _holds(trial)]
        rejected = tuple(trial for trial in tried.values() if not _holds(trial))
        if len(tried) == MOST_TRIES:  # those chosen now may be others than keep it
            holding = [trial.candidate for trial in tried.values() if _holds(trial)]
            kept = [tried[c.architecture] for c in choose(holding)] if holding else []
        if kept and (len(kept) == len(chosen) >= len(wanted) or len(tried) == MOST_TRIES):
            return Finalists(tuple(kept), rejected)
        if len(tried) == MOST_TRIES:
            break
        pool = [c for c in pool if c.architecture not in tried or _holds(tried[c.architecture])]
    raise InputError(
        f"none of the {len(tried)} best candidates keeps the budget when it is measured",
        _why_none([(trial, trial.measured) for trial in tried.values() if trial.measured]),
    )


def _likely(
    pool: Iterable[Candidate], tried: Mapping[Architecture, Trial], at_least: Collection[str]
) -> list[Candidate]:
    """Those that held, and those that would if they were as far off as the middle one of those measured.

    Dense candidates and mixtures have a middle one each, as their predictions err unlike each other.
    """
    errors: dict[tuple[bool, str], list[float]] = {}
    for trial in tried.values():
        for name, error in trial.errors().items():
            errors.setdefault((trial.candidate.architecture.is_dense, name), []).append(error)
    middle = {group: median(found) for group, found in errors.items() if len(found) >= FEWEST_ERRORS}

    def keeps(candidate: Candidate) -> bool:
        is_dense, costs = candidate.architecture.is_dense, candidate.costs
        shares = {name: costs[name] * error for (dense, name), error in middle.items() if dense == is_dense}
        return all(share >= 1 if name in at_least else share <= 1 for name, share in shares.items())

    return [c for c in pool if c.architecture in tried or keeps(c)]


def _holds(trial: Trial) -> bool:
    return trial.measured is None or trial.measured.holds


def _why_none(rejected: Sequence[tuple[Trial, Measured]]) -> list[str]:
    mend = "make the device profile again on a quiet machine"
    if any(measured.maximum_ms is not None for _, measured in rejected):
        mend += ", or raise the bound on latency_ms"
    if any(measured.broken for _, measured in rejected):
        names = dict.fromkeys(name for _, measured in rejected for name in measured.bounded_beside_latency)
        mend += ", or relax the other bounds that were broken" + (f" ({', '.join(names)})" if names else "")
    return [
        *(str(trial) for trial, _ in rejected),
        *dict.fromkeys(measured.noise for _, measured in rejected if measured.noise),
        mend,
    ]
