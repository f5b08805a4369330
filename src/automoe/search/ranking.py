"""Whether the loss with inherited weights ranks architectures as their own does, each trained by itself.

A search believes the supernet; how far it may is measured on members of the space that were trained too.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from automoe.design.architecture import Architecture
from automoe.design.space import SearchSpace
from automoe.errors import InputError

DRAWS_PER_MEMBER = 200
"""Members drawn for each one wanted; cells at the edges of the grid are rarely hit."""

_EXPERT_CLASSES = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a space that was judged both ways.

    Args:
        own_loss: validation loss after a training of its own, in nats a token.
        inherited_loss: validation loss with the supernet's weights, in nats a token.
        own_bleu: after its own training, 0 to 100; None when nothing was translated.
        costs: cost name -> value, in the unit the name says.
    """

    architecture: Architecture
    own_loss: float
    inherited_loss: float
    own_bleu: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well inherited losses stand for own ones.

    Attributes:
        members: how many were compared.
        kendall_tau: rank correlation (tau-b) of the two losses, -1 to 1; 0 where a rank does not exist, one
            of the losses being equal for all.
        spearman: rank correlation (rho), likewise.
        regret_nats: own loss of the member with the lowest inherited loss, less the lowest own loss; what
            trusting the supernet costs among these members, at least 0.
        regret_bleu: BLEU of the member with the lowest own loss, less that of the one with the lowest
            inherited loss (below 0 when the latter translates better); None when either has none.
    """

    members: int
    kendall_tau: float
    spearman: float
    regret_nats: float
    regret_bleu: float | None


def fidelity(members: Sequence[Member]) -> Fidelity:
    """Compare inherited and own losses; of members with equal losses the first given is the best.

    Raises:
        InputError: fewer than two members, or losses that are not finite; every one is listed.
    """
    problems = [
        f"{member.architecture}: its {name} loss is {loss}; leave it out"
        for member in members
        for name, loss in (("own", member.own_loss), ("inherited", member.inherited_loss))
        if not math.isfinite(loss)
    ]
    if len(members) < 2:
        problems.append(f"members: expected at least 2, got {len(members)}; train more of them")
    if problems:
        raise InputError("these members cannot be ranked", problems)
    from scipy.stats import kendalltau, spearmanr

    best = min(members, key=lambda member: member.own_loss)
    chosen = min(members, key=lambda member: member.inherited_loss)
    regret_bleu = None
    if best.own_bleu is not None and chosen.own_bleu is not None:
        regret_bleu = best.own_bleu - chosen.own_bleu
    own, inherited = [m.own_loss for m in members], [m.inherited_loss for m in members]
    ranked = len(set(own)) > 1 and len(set(inherited)) > 1
    return Fidelity(
        members=len(members),
        kendall_tau=float(kendalltau(own, inherited).statistic) if ranked else 0.0,
        spearman=float(spearmanr(own, inherited).statistic) if ranked else 0.0,
        regret_nats=chosen.own_loss - best.own_loss,
        regret_bleu=regret_bleu,
    )


def spread_members(
    space: SearchSpace, count: int, rng: random.Random, flops: Callable[[Architecture], float]
) -> tuple[Architecture, ...]:
    """Distinct members, spread over FLOPs and number of experts.

    Many members are drawn: half as `SearchSpace.sample` does, of which almost none has few experts, a quarter
    dense, a quarter between the two. A grid is laid over them, of even steps of log FLOPs by three classes
    of mean experts a layer: dense, and few and many, which part halfway between the least and the most of
    those drawn that are not dense. Each cell gives one member in turn, in random order. The smallest and the
    largest dense architecture come first where they are members.

    Args:
        count: at least 2; there are fewer when fewer distinct members are drawn.
        rng: all chance.
        flops: of a member, more than 0; called for every member drawn, `DRAWS_PER_MEMBER` times `count`.

    Raises:
        InputError: a count of less than 2.
    """
    if count < 2:
        raise InputError("members cannot be spread", [f"count: expected at least 2, got {count}"])
    extremes = tuple(m for m in (space.dense().smallest(), space.largest_dense()) if m in space)
    drawn = tuple(dict.fromkeys((*extremes, *_draw(space, count * DRAWS_PER_MEMBER, rng))))
    flops_steps = _even_steps([math.log(flops(m)) for m in drawn], math.ceil(count / _EXPERT_CLASSES))
    cells: defaultdict[tuple[int, int], list[Architecture]] = defaultdict(list)
    for member, flops_step, expert_class in zip(drawn, flops_steps, _expert_classes(drawn), strict=True):
        cells[flops_step, expert_class].append(member)
    shuffled = rng.sample(list(cells.values()), len(cells))
    # The extremes stand first in their cells, and so take the turns of these.
    in_turn = [member for turn in zip_longest(*shuffled) for member in turn if member is not None]
    return tuple(dict.fromkeys((*extremes, *in_turn)))[:count]


def _draw(space: SearchSpace, number: int, rng: random.Random) -> Iterator[Architecture]:
    """Random members, some of them equal."""
    dense = space.dense()
    for index in range(number):
        if index % 2:
            yield space.sample(rng)
        elif index % 4 and (member := dense.sample(rng)) in space:
            yield member
        else:
            # A layer has the one expert of its dense parent half of the time.
            yield space.cross(space.sample(rng), dense.sample(rng), rng)


def _expert_classes(members: Sequence[Architecture]) -> list[int]:
    """0 dense, 1 few, 2 many experts a layer."""
    means = [member.experts_a_layer for member in members]
    halves = iter(_even_steps([mean for mean in means if mean > 1], 2))
    return [1 + next(halves) if mean > 1 else 0 for mean in means]


def _even_steps(values: Sequence[float], steps: int) -> list[int]:
    """In which of `steps` equal parts of their range each value lies, from 0."""
    if not values:
        return []
    least, span = min(values), max(values) - min(values)
    return [min(int((value - least) / span * steps), steps - 1) if span else 0 for value in values]
