"""Constraints: a cost of an architecture and the most, or the least, it may be; any number hold at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from automoe.errors import InputError, checked


@checked("this constraint is impossible")
@dataclass(frozen=True, slots=True)
class Constraint:
    """`cost <= bound`, or `cost >= bound`, in the unit the cost's name says.

    Args:
        cost: its name.
        bound: positive and finite.
        at_least: the bound is from below, as on a throughput.

    Raises:
        InputError: a bound that is not a positive finite number.
    """

    cost: str
    bound: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    at_least: bool = False

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether `costs` keeps to it. KeyError when `costs` does not have this cost."""
        value = costs[self.cost]
        return value >= self.bound if self.at_least else value <= self.bound

    def ratio(self, costs: Mapping[str, float]) -> float:
        """How far `costs` is from the bound: 1 is at it, more breaks it. KeyError as in `holds`."""
        value = costs[self.cost]
        if not self.at_least:
            return value / self.bound
        return self.bound / value if value > 0 else math.inf

    def __str__(self) -> str:
        return f"{self.cost} {'>=' if self.at_least else '<='} {self.bound:,.6g}"


def parse_constraints(
    bounds: Mapping[str, Any], larger_is_better: Mapping[str, bool]
) -> tuple[Constraint, ...]:
    """The constraints of a recipe: `{"latency_ms": 120, "flops": 2e9}`; empty means none.

    Args:
        bounds: cost name -> bound.
        larger_is_better: of every cost there is, whether more of it is better: then its bound is from below.

    Raises:
        InputError: listing every unknown cost and every bound that is not a positive finite number.
    """
    constraints: list[Constraint] = []
    problems: list[str] = []
    for cost, bound in bounds.items():
        if cost not in larger_is_better:
            problems.append(f"{cost}: unknown cost (known: {', '.join(larger_is_better)})")
        try:
            constraints.append(Constraint(cost, bound, at_least=larger_is_better.get(cost, False)))
        except InputError as error:
            problems += [f"{cost}: {problem.removeprefix('bound: ')}" for problem in error.problems]
    if problems:
        raise InputError("constraints", problems)
    return tuple(constraints)


def violations(constraints: Iterable[Constraint], costs: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Those of `constraints` that `costs` breaks; a cost not in `costs` is not judged."""
    return tuple(c for c in constraints if c.cost in costs and not c.holds(costs))
