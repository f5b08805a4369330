"""What a search strategy is: it proposes architectures, and is told how good they are.

A strategy is one file: a function that makes a generator. It knows neither models nor devices, prices
nothing and writes nothing; `automoe.search.driver` does that for every strategy alike. All its chance comes
from the generator it is given, so run again with that seeded alike it proposes the same architectures as
long as it is told the same: so a search that was killed continues.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from automoe.design.architecture import Architecture
from automoe.search.candidate import Candidate

TRIES_PER_CANDIDATE = 100
"""Proposals made for each candidate wanted; a generation that runs out of them is just smaller."""


class Space(Protocol):
    """What a search needs of a search space; `automoe.design.space.SearchSpace` has it."""

    def sample(self, rng: random.Random) -> Architecture:
        """A random member, all its chance from `rng`."""

    def smallest(self) -> Architecture:
        """The member with every gene at its minimum: none is cheaper in any count."""

    def mutate(self, parent: Architecture, probability: float, rng: random.Random) -> Architecture:
        """A member like `parent`, each of whose genes is drawn anew with `probability`."""

    def cross(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """A member that has each gene from `a` or from `b`."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An architecture to be priced and scored.

    Args:
        iteration: of the strategy, for the log; 0 is its initial population.
    """

    architecture: Architecture
    iteration: int


Proposals: TypeAlias = Generator[Proposal, Candidate | None, None]
"""Yields one proposal after another, and is sent the candidate with its score for each: None when the
architecture was proposed before, breaks a constraint, or could not be priced. It ends when it is done."""

Strategy: TypeAlias = Callable[[Space, Architecture, random.Random], Proposals]
"""Given the space, one member known to be feasible (for when no random one is), and all its chance."""

Found: TypeAlias = Generator[Proposal, Candidate | None, list[Candidate]]
"""Proposals that are a part of a strategy's, for `yield from`; it returns the candidates found."""


def new_candidates(propose: Callable[[], Architecture], wanted: int, iteration: int) -> Found:
    """Up to `wanted` new feasible candidates, among `TRIES_PER_CANDIDATE` times as many proposals."""
    found: list[Candidate] = []
    for _ in range(wanted * TRIES_PER_CANDIDATE):
        if len(found) == wanted:
            break
        candidate = yield Proposal(propose(), iteration)
        if candidate is not None:
            found.append(candidate)
    return found


def random_candidates(space: Space, feasible: Architecture, rng: random.Random, wanted: int) -> Found:
    """Up to `wanted` random members, as iteration 0; the one known to be feasible when none of them is."""
    found = yield from new_candidates(lambda: space.sample(rng), wanted, iteration=0)
    if not found:
        found = yield from new_candidates(lambda: feasible, 1, iteration=0)
    return found
