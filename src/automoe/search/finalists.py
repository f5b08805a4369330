"""The finalists of a search: its best candidates, unlike each other, dense ones among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, assert_never

from automoe.design.architecture import (
    STACKS,
    Architecture,
    AverageAttention,
    CrossAttention,
    Expert,
    FeedForward,
    Layer,
    SelfAttention,
    Ssru,
)
from automoe.errors import InputError
from automoe.search.candidate import Candidate, score_of

_Genes: TypeAlias = dict[tuple[str, ...], int | str | Expert]


def distance(a: Architecture, b: Architecture) -> int:
    """In how many genes two architectures differ: a metric (the Hamming distance of their genes).

    The genes are the width and number of layers of each stack, of each layer its heads, cross-attention
    heads, encoder layers attended, experts a token is sent to and number of experts, and each expert; in the
    place of self-attention's heads, which other kind the layer has. A
    layer or an expert that only one of the two has counts each of its genes. `qkv_dim`, which a space
    fixes, is one more.
    """
    genes_a, genes_b = _genes(a), _genes(b)
    return sum(genes_a.get(name) != genes_b.get(name) for name in genes_a.keys() | genes_b.keys())


def choose_finalists(
    candidates: Sequence[Candidate], count: int, *, dense: int, min_distance: int, per_shape: int
) -> tuple[Candidate, ...]:
    """The best candidates that are unlike each other, in order of score; of equals the first given.

    They are chosen from the best to the worst, at most `per_shape` dense ones of one shape (the widths and
    numbers of layers), and as many mixtures, and each at least `min_distance` from those chosen before. The
    last places are kept for dense architectures (one expert in every layer) until there are `dense`. Places
    that are left empty go to the best others, first of any shape, then however near.

    Args:
        candidates: feasible and scored. Of equal architectures the one with the better score counts.
        count: of finalists; there are fewer when there are fewer architectures.
        dense: the least number of dense ones among them, as far as there are any.
        min_distance: in genes, as `distance` counts; 0 and 1 allow any two.
        per_shape: at least 1.

    Raises:
        InputError: no candidates, or a number out of range.
        ValueError: a candidate was not scored.
    """
    _check(candidates, count, dense, min_distance, per_shape)
    ranked: dict[Architecture, Candidate] = {}
    for candidate in sorted(candidates, key=score_of):
        ranked.setdefault(candidate.architecture, candidate)
    sparse_left = count - min(dense, sum(architecture.is_dense for architecture in ranked))
    chosen: list[Architecture] = []
    # At a distance of 1 from all chosen it is not one of them.
    for least, most in ((max(min_distance, 1), per_shape), (max(min_distance, 1), count), (1, count)):
        for architecture in ranked:
            is_dense = architecture.is_dense
            if (
                len(chosen) < count
                and (is_dense or sparse_left)
                and [_shape(other) for other in chosen].count(_shape(architecture)) < most
                and all(distance(architecture, other) >= least for other in chosen)
            ):
                chosen.append(architecture)
                sparse_left -= not is_dense
    return tuple(candidate for architecture, candidate in ranked.items() if architecture in chosen)


def _shape(a: Architecture) -> tuple[bool, int, int, int, int]:
    # A mixture takes no place from a dense one: which of the two is better is what a race is to find out.
    return a.is_dense, a.encoder_width, a.decoder_width, len(a.encoder), len(a.decoder)


def _check(
    candidates: Sequence[Candidate], count: int, dense: int, min_distance: int, per_shape: int
) -> None:
    problems = []
    if not candidates:
        problems.append("candidates: none is feasible; relax the bounds, or search longer")
    if count < 1:
        problems.append(f"count: expected at least 1, got {count}")
    if not 0 <= dense <= max(count, 0):
        problems.append(f"dense: expected 0 to {max(count, 0)} (all finalists), got {dense}")
    if min_distance < 0:
        problems.append(f"min_distance: expected at least 0, got {min_distance}")
    if per_shape < 1:
        problems.append(f"per_shape: expected at least 1, got {per_shape}")
    if problems:
        raise InputError("there can be no finalists", problems)


def _genes(architecture: Architecture) -> _Genes:
    """By name."""
    genes: _Genes = {("qkv_dim",): architecture.qkv_dim}
    for stack in STACKS:
        layers = architecture.layers(stack)
        genes |= {(stack, "width"): layers[0].width, (stack, "layers"): len(layers)}
        for layer in layers:
            genes |= _layer_genes(layer)
    return genes


def _layer_genes(layer: Layer) -> _Genes:
    genes: _Genes = {}
    for sublayer in layer.sublayers:
        match sublayer:
            case SelfAttention(heads):
                genes[layer.name, "self_attention_heads"] = heads
            case AverageAttention() | Ssru():
                genes[layer.name, "self_attention_heads"] = type(sublayer).__name__
            case CrossAttention(heads, attended):
                genes[layer.name, "cross_attention_heads"] = heads
                genes[layer.name, "encoder_layers_attended"] = attended
            case FeedForward(experts, top_k):
                genes[layer.name, "top_k"] = top_k
                genes[layer.name, "experts"] = len(experts)
                genes |= {(layer.name, "expert", str(index)): expert for index, expert in enumerate(experts)}
            case _:
                assert_never(sublayer)
    return genes
