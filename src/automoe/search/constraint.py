"""Constraints: a cost of an architecture and the most it may be; any number hold at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from automoe.errors import InputError

MEASURED = frozenset({"latency_ms"})
"""Costs that take a device and seconds; all others are counted from the architecture in no time."""

COSTS = ("latency_ms", "flops", "parameters", "active_parameters", "memory_bytes")
"""Every cost a constraint may bound."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """`cost <= maximum`, in the unit the cost's name says.

    Raises:
        InputError: an unknown cost, or a maximum that is not a positive finite number.
    """

    cost: str
    maximum: float

    def __post_init__(self) -> None:
        problems = list(_problems(self.cost, self.maximum))
        if problems:
            raise InputError("this constraint is impossible", problems)

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether `costs` keeps to it. KeyError when `costs` does not have this cost."""
        return costs[self.cost] <= self.maximum

    def __str__(self) -> str:
        return f"{self.cost} <= {self.maximum:,.6g}"


def parse_constraints(bounds: Mapping[str, Any]) -> tuple[Constraint, ...]:
    """The constraints of a recipe: `{"latency_ms": 120, "flops": 2e9}`; empty means none.

    Raises:
        InputError: listing every unknown cost and every bound that is not a positive number.
    """
    problems = [problem for cost, maximum in bounds.items() for problem in _problems(cost, maximum)]
    if problems:
        raise InputError("constraints", problems)
    return tuple(Constraint(cost, float(maximum)) for cost, maximum in bounds.items())


def violations(constraints: Iterable[Constraint], costs: Mapping[str, float]) -> tuple[Constraint, ...]:
    """Those of `constraints` that `costs` breaks; a cost not in `costs` is not judged."""
    return tuple(c for c in constraints if c.cost in costs and not c.holds(costs))


def _problems(cost: Any, maximum: Any) -> Iterable[str]:
    if cost not in COSTS:
        yield f"{cost}: unknown cost (known: {', '.join(COSTS)})"
    is_number = isinstance(maximum, int | float) and not isinstance(maximum, bool)
    if not is_number or not math.isfinite(maximum) or maximum <= 0:
        yield f"{cost}: expected a positive number, got {maximum!r}"
        # YAML 1.1 reads 2e9, without a dot, as text.
        if isinstance(maximum, str) and "e" in maximum.lower():
            yield f"{cost}: YAML reads {maximum} as text; write 2.0e+9 for 2e9"
