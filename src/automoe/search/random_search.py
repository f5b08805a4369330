"""Random search, which every other strategy has to beat."""

from __future__ import annotations

import random

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.strategy import Proposals, Space, Strategy, random_candidates


def random_search(budget: int) -> Strategy:
    """Random feasible architectures.

    Args:
        budget: how many different ones. For a fair comparison it is `EvolutionSettings.budget`, or how many
            candidates evolution did score.

    Raises:
        InputError: a budget of less than 1.
    """
    if budget < 1:
        raise InputError("settings of the random search", [f"budget: expected at least 1, got {budget}"])

    def proposals(space: Space, feasible: Architecture, rng: random.Random) -> Proposals:
        yield from random_candidates(space, feasible, rng, budget)

    return proposals
