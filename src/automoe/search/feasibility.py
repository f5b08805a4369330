"""Whether a space has a member that satisfies the constraints, asked before a search is paid for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.constraint import Constraint
from automoe.search.evaluation import Cost, Pricing
from automoe.search.log import CandidateLog, Entry

SAMPLES = 500
"""Random members whose counted costs are looked at when the smallest member is infeasible."""

MEASUREMENTS = 20
"""Members that are measured, at most."""


class Sampled(Protocol):
    """The part of a search space that the check needs."""

    def sample(self, rng: random.Random) -> Architecture: ...
    def smallest(self) -> Architecture: ...


def check_feasible(
    space: Sampled,
    constraints: Sequence[Constraint],
    costs: Mapping[str, Cost],
    rng: random.Random,
    log: CandidateLog,
) -> Architecture:
    """A member of `space` that satisfies all `constraints`: the smallest member, or a random one.

    Costs are logged under the strategy "feasibility", without a score.

    Raises:
        InputError: none was found; lists each constraint's bound, what the closest member needs and
            the lowest value seen.
    """
    pricing = Pricing(costs, constraints, log)
    tried: dict[Architecture, dict[str, float]] = {}
    measurements = 0
    for attempt in range(1 + SAMPLES):
        architecture = space.sample(rng) if attempt else space.smallest()
        if architecture in tried:
            continue
        found = pricing.counted(architecture)
        # The smallest member is measured in any case: the error should name a latency to aim for.
        if attempt == 0 or (not pricing.broken(found) and measurements < MEASUREMENTS):
            found |= pricing.measured(architecture)
            measurements += architecture not in pricing.refusals
        feasible = pricing.keeps(found)
        entry = Entry("feasibility", 0, len(tried), Candidate(architecture, found), feasible)
        log.append(entry)
        if feasible:
            return architecture
        tried[architecture] = found
    problems = [*_nearest(constraints, list(tried.values())), _MEND]
    if pricing.refusals:
        first = next(iter(pricing.refusals.values()))
        problems.insert(0, f"{len(pricing.refusals):,} could not be priced; the first: {first}")
    raise InputError(
        f"no architecture of this space satisfies the constraints ({len(tried):,} were tried)", problems
    )


_MEND = "raise the bounds to at least what the closest needs, or let the space have smaller members"


def _nearest(constraints: Sequence[Constraint], tried: Sequence[Mapping[str, float]]) -> list[str]:
    """One line a constraint; the closest member is the one whose worst cost/bound is the lowest."""
    complete = [costs for costs in tried if all(c.cost in costs for c in constraints)]
    closest = min(
        complete, key=lambda costs: max(costs[c.cost] / c.maximum for c in constraints), default=None
    )
    lines = []
    for c in constraints:
        known = [costs[c.cost] for costs in tried if c.cost in costs]
        if not known:
            lines.append(f"{c}: this cost could not be computed for any of them")
        elif closest is None:
            lines.append(f"{c}: lowest found {min(known):,.6g}")
        else:
            lines.append(
                f"{c}: {'kept' if c.holds(closest) else 'broken'} by the closest, which needs "
                f"{closest[c.cost]:,.6g}; lowest found {min(known):,.6g}"
            )
    return lines
