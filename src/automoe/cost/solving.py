"""From measurements of whole models to the times of their parts: one least-squares problem a stack.

Shapes: M measurements, P parts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

from automoe.cost.parts import STACKS, Inventory, Stack, Term
from automoe.cost.probes import Probe

# Some sums of parts cannot be told apart (every decoder layer has one self- and one cross-attention):
# of all solutions, this small pull towards zero prefers the one that divides such a sum evenly.
EVENNESS = 1e-3

StackMs = Mapping[Stack, float]
"""The time of each stack, in ms."""


def solve(inventory: Inventory, measured: Sequence[tuple[Probe, StackMs]]) -> dict[Term, float]:
    """The times of all parts in ms, none negative, that explain the measurements best.

    Errors count relative to the measured time of the stack: the machine's noise grows with it.
    """
    times: dict[Term, float] = {}
    weights = [weights_of(inventory, probe) for probe, _ in measured]
    for stack in STACKS:
        terms = sorted(term for term in inventory.terms if term.stack == stack)
        rows_MP = np.array([[row.get(term, 0.0) for term in terms] for row in weights])
        rows_MP /= np.array([[ms[stack]] for _, ms in measured])
        even_PP = EVENNESS * np.eye(len(terms)) * np.abs(rows_MP).max()
        ms_P, _ = nnls(
            np.concatenate([rows_MP, even_PP]),
            np.concatenate([np.ones(len(measured)), np.zeros(len(terms))]),
        )
        times |= dict(zip(terms, ms_P.tolist(), strict=True))
    return times


def explained(inventory: Inventory, times: Mapping[Term, float], probe: Probe) -> dict[Stack, float]:
    """What these times add up to for a probe, in ms."""
    total: dict[Stack, float] = dict.fromkeys(STACKS, 0.0)
    for term, weight in weights_of(inventory, probe).items():
        total[term.stack] += weight * times[term]
    return total


def weights_of(inventory: Inventory, probe: Probe) -> dict[Term, float]:
    """How much of each part a probe has. With its tiny vocabulary, a probe has no output layer."""
    weights: defaultdict[Term, float] = defaultdict(float)
    for use in inventory.uses(probe.architecture):
        if use.term.part != "output" or probe.full_vocabulary:
            weights[use.term] += use.weight
    return weights
