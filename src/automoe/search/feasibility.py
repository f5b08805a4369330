"""Whether a space has a member that satisfies the constraints, asked before a search is paid for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.constraint import Constraint
from automoe.search.evaluator import Price, Pricing
from automoe.search.log import CandidateLog, LogEntry, SearchName
from automoe.search.strategy import Space

SAMPLES = 500
"""Random members whose counted costs are looked at when the smallest member is infeasible."""

MEASUREMENTS = 20
"""Members that are measured, at most."""


def check_feasible(
    space: Space,
    constraints: Sequence[Constraint],
    prices: Mapping[str, Price],
    rng: random.Random,
    log: CandidateLog,
    space_name: str = "whole",
) -> Architecture:
    """A member of `space` that satisfies all `constraints`: the smallest member, or a random one.

    Costs are logged under the system "feasibility", without a score.

    Args:
        space_name: the space's in the log.

    Raises:
        InputError: none was found; lists each constraint's bound, what the closest member needs and
            the best value seen.
    """
    search = SearchName("feasibility", "feasibility", space_name)
    pricing = Pricing(prices, constraints, log)
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
        pricing.record(LogEntry(search, 0, len(tried), Candidate(architecture, found), feasible))
        if feasible:
            return architecture
        tried[architecture] = found
    problems = [*nearest(constraints, list(tried.values())), _mend(constraints)]
    if pricing.refusals:
        first = next(iter(pricing.refusals.values()))
        problems.insert(0, f"{len(pricing.refusals):,} could not be priced; the first: {first}")
    raise InputError(
        f"no architecture of this space satisfies the constraints ({len(tried):,} were tried)", problems
    )


def _mend(constraints: Sequence[Constraint]) -> str:
    move = "raise the bounds to at least what the closest needs"
    if any(c.at_least for c in constraints):
        move += ", and lower those on what it reaches (>=)"
    return f"{move}, or let the space have smaller members"


def nearest(constraints: Sequence[Constraint], tried: Sequence[Mapping[str, float]]) -> list[str]:
    """How the costs of several architectures, all of which break a constraint, are beside the bounds.

    One line a constraint; the closest member is the one whose worst `Constraint.ratio` is the lowest.
    """
    complete = [costs for costs in tried if all(c.cost in costs for c in constraints)]
    closest = min(complete, key=lambda costs: max(c.ratio(costs) for c in constraints), default=None)
    lines = []
    for c in constraints:
        known = [costs[c.cost] for costs in tried if c.cost in costs]
        if not known:
            lines.append(f"{c}: this cost could not be computed for any of them")
            continue
        best = f"highest found {max(known):,.6g}" if c.at_least else f"lowest found {min(known):,.6g}"
        if closest is None:
            lines.append(f"{c}: {best}")
        else:
            kept, needs = "kept" if c.holds(closest) else "broken", "reaches" if c.at_least else "needs"
            lines.append(f"{c}: {kept} by the closest, which {needs} {closest[c.cost]:,.6g}; {best}")
    return lines
