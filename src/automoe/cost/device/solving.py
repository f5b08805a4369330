"""From measurements of whole models to the times of their parts: one least-squares problem a stack.

A time for every part, each free of all others, would follow the noise: there are about as many parts as
measurements, and in models of random weights a mixture's time depends on which experts its router happens
to like. So parts share coefficients, by what their work is made of (`law`): matrix products read and
multiply weights, in time proportional to their number, and every operation has a fixed cost.

Shapes: M measurements, P parts, C coefficients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

from automoe.cost.device.parts import Inventory, Term
from automoe.cost.device.probes import Probe
from automoe.design.architecture import STACKS, Stack

# Some sums cannot be told apart (every decoder layer has one self- and one cross-attention): of all
# solutions, this small pull towards zero prefers the one that divides such a sum evenly.
EVENNESS = 1e-3

StackMs = Mapping[Stack, float]
"""The time of each stack, in ms."""


def law(term: Term) -> dict[str, float]:
    """The coefficients that make up the time of a part, by name, each with its factor.

    In a mixture, how many weights are read depends on how many of its experts get a token, which is not
    proportional to their number: each number of experts and top-k has a coefficient of its own.
    """
    width, heads, attended = term.width, term.heads, term.layers_attended
    match term.part:
        case "overhead" | "output":
            return {term.part: 1, f"{term.part} per width": width}
        case "self_attention":
            return {"self": 1, "self per width": width, "self per head": heads}
        case "average_attention" | "ssru":
            return {term.part: 1, f"weights of {term.part}": width * width}
        case "cross_attention":
            by_length = {"cross per layer": attended, "cross per layer and width": attended * width}
            by_heads = {"cross per head": heads, "cross per layer and head": attended * heads}
            return {"cross": 1, "cross per width": width, **by_length, **by_heads}
        case "keys_values":
            return {"keys per layer": attended, "keys per layer and width": attended * width}
        case "experts":
            weights = {f"weights of {term.top_k} in {term.experts}": width * term.ffn_size}
            if term.experts == 1:
                return {**weights, "ffn": 1}
            return {**weights, f"router of {term.top_k}": 1, "per expert": term.experts}


def solve(inventory: Inventory, measured: Sequence[tuple[Probe, StackMs]]) -> dict[Term, float]:
    """The times of all parts in ms, by the law, no coefficient negative, that explain the measurements best.

    Errors count relative to the measured time of the stack: the machine's noise grows with it.
    """
    times: dict[Term, float] = {}
    weights = [weights_of(inventory, probe) for probe, _ in measured]
    for stack in STACKS:
        terms = sorted(term for term in inventory.terms if term.stack == stack)
        laws = [law(term) for term in terms]
        names = sorted({name for coefficients in laws for name in coefficients})
        law_PC = np.array([[coefficients.get(name, 0.0) for name in names] for coefficients in laws])
        rows_MP = np.array([[row.get(term, 0.0) for term in terms] for row in weights])
        rows_MC = rows_MP / np.array([[ms[stack]] for _, ms in measured]) @ law_PC
        largest_C = rows_MC.max(axis=0)
        scale_C = np.where(largest_C > 0, largest_C, 1)
        even_CC = EVENNESS * np.eye(len(names))
        scaled_C, _ = nnls(
            np.concatenate([rows_MC / scale_C, even_CC]),
            np.concatenate([np.ones(len(measured)), np.zeros(len(names))]),
        )
        ms_P = law_PC @ (scaled_C / scale_C)
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
