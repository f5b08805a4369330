"""Supernet rules: which members of a space a step trains, which of them teaches, how they share weights."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias, assert_never

from pydantic import Field

from automoe.design.architecture import (
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    SelfAttention,
    Ssru,
)
from automoe.design.space import SearchSpace
from automoe.errors import AtLeastOne, AtLeastZero, InputError, Share, checked

# Of so many draws `balanced` takes the one whose cost is nearest to the cost it wants.
BALANCED_DRAWS = 8


@checked("these members are impossible")
@dataclass(frozen=True, slots=True)
class Members:
    """The sub-networks of one step; their gradients make one update.

    Args:
        architectures: at least one; an architecture may occur twice.
        teacher: the index of the one that teaches the others; it learns from the data alone.
        distillation: weight of the teacher's distribution in the others' loss.

    Raises:
        InputError: listing every value that is out of range.
    """

    architectures: Annotated[tuple[Architecture, ...], Field(min_length=1)]
    teacher: AtLeastZero | None = None
    distillation: Share = 0.5

    def __post_init__(self) -> None:
        if self.teacher is not None and self.teacher >= len(self.architectures):
            known = f"expected one of the {len(self.architectures)} members' indices"
            raise InputError("these members are impossible", [f"teacher: {known}, got {self.teacher}"])


SupernetRule: TypeAlias = Callable[[int, random.Random], Members]
"""The members of a step (1, 2, ...), given all its chance."""


@checked("this rule is impossible")
@dataclass(frozen=True, slots=True)
class Rule:
    """A row of `RULES`.

    Args:
        make: the rule for the members of a space.
        members: how many a step trains, so that rules can be compared at equal compute.
        versions: of each matrix of the supernet; with several, a member's are generated from them
            (`automoe.model.mixture_of_supernets`).
    """

    make: Callable[[SearchSpace], SupernetRule]
    members: AtLeastOne
    versions: AtLeastOne = 1


def only(architecture: Architecture) -> SupernetRule:
    """The rule of a single model: always this one."""
    members = Members((architecture,))
    return lambda step, rng: members


def random_members(space: SearchSpace) -> SupernetRule:
    """The paper's rule (AutoMoE, Jawahar et al., 2023; HAT's before): one random member a step."""
    return lambda step, rng: Members((space.sample(rng),))


def sandwich(space: SearchSpace) -> SupernetRule:
    """The sandwich rule with in-place distillation (Yu & Huang, 2019; BigNAS, Yu et al., 2020).

    The largest member, which teaches, the smallest, a random one, and a random one among the dense ones,
    which in a space of mixtures the random one hardly ever is. In a space without dense members a second
    random one takes its place.
    """
    largest, smallest, dense = space.largest(), space.smallest(), _dense_part(space)

    def members(step: int, rng: random.Random) -> Members:
        return Members((largest, smallest, space.sample(rng), dense.sample(rng)), teacher=0)

    return members


def balanced(space: SearchSpace) -> SupernetRule:
    """One member a step, drawn evenly over dense ones and all, and evenly over the logarithm of cost.

    A random member has average cost and, among many layers, always a mixture somewhere. So a coin chooses
    between the dense members (where the space has any) and the whole space; and out of `BALANCED_DRAWS`
    members of that part the one is taken whose log-cost (`active_parameters`) is nearest to one drawn
    uniformly between those of the part's smallest and largest.
    """
    parts = [
        (part, math.log(active_parameters(part.smallest())), math.log(active_parameters(part.largest())))
        for part in (_dense_part(space), space)
    ]

    def members(step: int, rng: random.Random) -> Members:
        part, lowest, highest = rng.choice(parts)
        wanted = rng.uniform(lowest, highest)
        drawn = [part.sample(rng) for _ in range(BALANCED_DRAWS)]
        return Members((min(drawn, key=lambda a: abs(math.log(active_parameters(a)) - wanted)),))

    return members


def half_dense(space: SearchSpace) -> SupernetRule:
    """One member a step, each of whose genes comes from a random member or from a random dense one.

    So every layer is dense half of the time: dense members and mixtures, which share weights, train together.
    """
    dense = _dense_part(space)
    return lambda step, rng: Members((space.cross(space.sample(rng), dense.sample(rng), rng),))


def active_parameters(architecture: Architecture) -> float:
    """The weights of attention and experts that one token meets, as a stand-in for cost.

    An expert counts with the mean size of its layer, and the keys and values of cross-attention once for
    every encoder layer attended. Biases, norms, routers and the embedding are left out.
    """
    total = 0.0
    for layer in architecture.layers():
        projection = layer.width * architecture.qkv_dim
        for sublayer in layer.sublayers:
            match sublayer:
                case SelfAttention():
                    total += 4 * projection
                case AverageAttention():
                    total += 4 * layer.width**2
                case Ssru():
                    total += 2 * layer.width**2
                case CrossAttention():
                    source = architecture.encoder_width * architecture.qkv_dim
                    total += 2 * projection + 2 * source * sublayer.encoder_layers_attended
                case FeedForward():
                    sizes = sublayer.ffn_sizes
                    total += 2 * layer.width * sublayer.top_k * sum(sizes) / len(sizes)
                case _:
                    assert_never(sublayer)
    return total


RULES: dict[str, Rule] = {
    "random": Rule(random_members, members=1),
    "sandwich": Rule(sandwich, members=4),
    "balanced": Rule(balanced, members=1),
    "half_dense": Rule(half_dense, members=1),
    "mixture_of_supernets": Rule(random_members, members=1, versions=2),
}
"""The rules a recipe can name; a program that uses this package may add its own."""


def _dense_part(space: SearchSpace) -> SearchSpace:
    """The dense members as a space of their own; the space itself where there are none."""
    return space.dense() if space.largest_dense() in space else space
