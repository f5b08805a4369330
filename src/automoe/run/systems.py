"""`System`: one row of the results table as a recipe declares it, and the strategies that may find one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from automoe.cost.costs import COSTS, Bound, check_bounds
from automoe.errors import InputError
from automoe.search.evolution import EvolutionSettings, evolution
from automoe.search.nsga2 import nsga2
from automoe.search.pareto import LOSS, SearchObjective
from automoe.search.random_search import random_search
from automoe.search.strategy import Strategy

LARGEST_DENSE = "largest-dense"
UNIFORM = "uniform"
MOST_NAME_BYTES = 150


@dataclass(frozen=True, slots=True)
class Effort:
    """What a strategy may spend.

    Attributes:
        algorithm: the recipe's `search.algorithm`.
        candidates: to be scored: as many as the algorithm scores at most, or, beside a search of another
            strategy under the same constraints, as many as that one did score, for a fair comparison.
        objectives: of a search for a front.
    """

    algorithm: EvolutionSettings
    candidates: int
    objectives: tuple[SearchObjective, ...] = ()


STRATEGIES: dict[str, Callable[[Effort], tuple[Strategy, int]]] = {
    "evolution": lambda effort: (evolution(effort.algorithm), effort.algorithm.budget),
    "random": lambda effort: (random_search(effort.candidates), effort.candidates),
    "nsga2": lambda effort: (nsga2(effort.algorithm, effort.objectives), effort.algorithm.budget),
}
"""Name of a strategy to what makes it, and how many candidates it scores at most."""

OF_ONE_OBJECTIVE = ("evolution", "random")
"""Strategies that look for the best score alone."""

DEFAULT_OBJECTIVES = (LOSS, "flops")


def objectives_named(names: Sequence[str]) -> tuple[SearchObjective, ...]:
    """The objectives of these names: the loss, and costs of the table, which knows what is better.

    Raises:
        InputError: an unknown name, one twice, no loss, or nothing beside it.
    """
    known = (LOSS, *COSTS)
    problems = [
        f"{name}: unknown objective (known: {', '.join(known)})" for name in names if name not in known
    ]
    if len(set(names)) < len(names):
        problems.append("expected each objective once")
    if LOSS not in names or len(names) < 2:
        problems.append(f"expected {LOSS} and at least one cost, got {', '.join(names) or 'none'}")
    if problems:
        raise InputError("these objectives are impossible", problems)
    return tuple(SearchObjective(name, name != LOSS and COSTS[name].larger_is_better) for name in names)


def _number_or_share(bound: Any) -> Any:
    is_share = isinstance(bound, str) and re.fullmatch(r"\d+(\.\d+)?%", bound)
    if not is_share and (isinstance(bound, bool) or not isinstance(bound, int | float)):
        raise ValueError("expected a positive number, or a share such as 60%")
    return bound


def _known_costs(bounds: dict[str, Bound]) -> dict[str, Bound]:
    check_bounds(bounds)
    return bounds


def name_of_a_folder(name: str) -> str:
    """The name of a system, which becomes part of names of folders, of which file systems take 255 bytes.

    Raises:
        ValueError: no folder can be called so.
    """
    if not re.fullmatch(r"[\w.-]+", name) or not name.strip("."):
        raise ValueError("expected letters, digits, `-`, `_` and `.`, and not dots alone")
    if (length := len(name.encode("utf-8", "replace"))) > MOST_NAME_BYTES:
        raise ValueError(f"is too long, {length} bytes: expected at most {MOST_NAME_BYTES}")
    return name


RecipeBound: TypeAlias = Annotated[float | str, BeforeValidator(_number_or_share)]
RecipeBounds: TypeAlias = Annotated[dict[str, RecipeBound], AfterValidator(_known_costs)]
Name: TypeAlias = Annotated[str, AfterValidator(name_of_a_folder)]


class System(BaseModel):
    """One system that is trained and compared: an architecture, or a search that finds one.

    Attributes:
        name: in the table, and of its stages.
        architecture: a file (ours or HAT's YAML); `largest-dense`, the space's; or `uniform`, a
            Switch Transformer: the baseline with the space's most experts in every second layer.
        search: the name of a strategy. `space`: a file, if not the recipe's space; its members must be
            parts of the recipe's supernet. `experts`: `dense` searches dense members only, as HAT does.
        constraints: cost name to bound, instead of the recipe's `search.constraints`.
        objectives: of a search for a front (`nsga2`): `loss`, which is what the search ranks by, and costs;
            by default loss and flops.
        minutes_of: another system: this one is trained for as many minutes, instead of as many steps.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Name
    architecture: str | None = None
    search: str | None = None
    space: str | None = None
    experts: Literal["any", "dense"] = "any"
    constraints: RecipeBounds | None = None
    objectives: tuple[str, ...] | None = None
    minutes_of: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> System:
        problems = []
        if (self.architecture is None) == (self.search is None):
            problems.append(
                "give exactly one of: architecture (a file, largest-dense or uniform); search (a strategy: "
                f"{', '.join(STRATEGIES)})"
            )
        if self.search is not None and self.search not in STRATEGIES:
            problems.append(f"search: unknown strategy {self.search!r} (known: {', '.join(STRATEGIES)})")
        if self.search is None:
            only_searched = {"space": None, "experts": "any", "constraints": None, "objectives": None}
            problems += [
                f"{field}: only a system with search has it"
                for field, default in only_searched.items()
                if getattr(self, field) != default
            ]
        elif self.search in OF_ONE_OBJECTIVE and self.objectives is not None:
            problems.append(f"objectives: {self.search} has one, the loss; search: nsga2 takes several")
        elif self.objectives is not None:
            try:
                objectives_named(self.objectives)
            except InputError as error:
                problems += [f"objectives: {problem}" for problem in error.problems]
        if self.minutes_of == self.name:
            problems.append("minutes_of: expected another system, got this one")
        if problems:
            raise InputError("this system is impossible", problems)
        return self

    @property
    def sought(self) -> tuple[SearchObjective, ...]:
        """The objectives of its search; none where it looks for the best score alone."""
        if self.search is None or self.search in OF_ONE_OBJECTIVE:
            return ()
        return objectives_named(self.objectives or DEFAULT_OBJECTIVES)

    @property
    def is_file(self) -> bool:
        """Whether its architecture is one of a file."""
        return self.architecture not in (None, LARGEST_DENSE, UNIFORM)


def check_systems(systems: tuple[System, ...]) -> tuple[System, ...]:
    """The systems of a recipe, if they go together.

    Raises:
        InputError: none at all, two of one name, `minutes_of` one that is not there or that itself waits for
            another; each is named.
    """
    names = [system.name for system in systems]
    problems = [] if systems else ["expected at least one system"]
    problems += [
        f"{name}: {names.count(name)} systems have this name"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    by_name = {system.name: system for system in systems}
    for system in systems:
        if system.minutes_of is None:
            continue
        other = by_name.get(system.minutes_of)
        if other is None:
            problems.append(
                f"{system.name}.minutes_of: no system is called {system.minutes_of} "
                f"(there are: {', '.join(by_name)})"
            )
        elif other.minutes_of is not None:
            problems.append(f"{system.name}.minutes_of: {other.name} has no number of steps of its own")
    if problems:
        raise InputError("these systems are impossible", problems)
    return systems


def fine_tuned_names(system: str) -> list[str]:
    """What `fine_tuning` calls the two systems it makes of a searched one: as inherited, and trained on."""
    return [f"{system}-inherited", f"{system}-fine-tuned"]
