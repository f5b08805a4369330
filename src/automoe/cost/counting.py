"""Parameters, FLOPs and memory of an `Architecture`, counted without building a model.

Two accountings stand beside each other:

- The papers' (HAT, AutoMoE): parameters without embeddings and output layer; FLOPs of one teacher-forced
  pass without the output layer. Equal to HAT's published tables in every decimal they print. AutoMoE's
  tables leave the routers out; here they count, in both parameters and FLOPs.
- The honest one (`total_parameters`, `total_flops`, `memory_bytes`): everything, for one sentence
  translated step by step by beam search with a key-value cache.

A FLOP count is twice the multiply-accumulates. Additions, biases, ReLU, softmax and look-ups count 0.

Names: S source and T target tokens, R rows (positions) the decoder computes, V vocabulary, W tokens of the
output layer; E experts of a layer, each with a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import (
    STACKS,
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    Layer,
    Norm,
    SelfAttention,
    Ssru,
    StateTensor,
    SubLayer,
)
from automoe.errors import InputError

RoutingShares = Mapping[str, Sequence[float]]
"""Layer name, e.g. `encoder.0`, to the share of its assignments each expert gets (they sum to 1)."""

FLOAT32_BYTES = 4
PAPERS = MeasuringProtocol()


@dataclass(frozen=True, slots=True)
class Counts:
    """What an architecture costs.

    "Expected" is over the routing: with the given shares, or each expert equally likely.

    Attributes:
        parameters: without embedding and output layer.
        active_parameters: of those, how many one token uses; expected, rounded.
        sparsity: share of `parameters` that is not active, 0 to 1.
        flops: of one teacher-forced pass, output layer excluded; expected, rounded.
        flops_min, flops_max: if every token went to the smallest, or the largest, experts of each layer.
        total_parameters: all, the tied embedding once.
        total_flops: of translating one sentence in exactly `target_length` steps by beam search with a
            key-value cache, output layer included; expected, rounded.
        memory_bytes: float32 weights and the peak of everything else alive during that translation
            (`_peak_values`); without interpreter and libraries.
    """

    parameters: int
    active_parameters: int
    sparsity: float
    flops: int
    flops_min: int
    flops_max: int
    total_parameters: int
    total_flops: int
    memory_bytes: int


def count(
    architecture: Architecture,
    protocol: MeasuringProtocol | None = None,
    routing_shares: RoutingShares | None = None,
) -> Counts:
    """Count everything; takes well below a millisecond.

    Args:
        protocol: lengths, vocabulary, shortlist, beam and norm (`pre` has one more layer norm at the end of
            each stack); by default the papers'. Engine, threads and batch do not matter.
        routing_shares: measured shares of some or all layers; the others route uniformly.

    Raises:
        InputError: shares of an unknown layer, of another number of experts, or impossible ones.
    """
    a, p = architecture, protocol or PAPERS
    layers = tuple(a.layers())
    calls = _expert_calls(layers, routing_shares)
    active: float
    parameters = active = _always_active_parameters(a, layers, p.norm)
    expected: list[float] = []
    smallest, largest = [], []
    for layer, calls_E in zip(layers, calls, strict=True):
        feed_forward = layer.feed_forward
        size_E, top_k = feed_forward.ffn_sizes, feed_forward.top_k
        parameters_E = [_expert_parameters(layer.width, size) for size in size_E]
        parameters += sum(parameters_E)
        active += _dot(calls_E, parameters_E)
        expected.append(_dot(calls_E, size_E))
        ascending = sorted(size_E)
        smallest.append(sum(ascending[:top_k]))
        largest.append(sum(ascending[-top_k:]))

    S, T, V, W = p.source_length, p.target_length, p.vocabulary_size, p.output_tokens
    # The papers count whole attention matrices, nothing masked.
    papers = 2 * (_products(a, layers, p.norm, S, T, T * T) + _traced_products(layers, S, T))
    rows = p.beam_size * T
    cached_pairs = p.beam_size * T * (T + 1) // 2  # step t sees t cached keys
    translation = 2 * (_products(a, layers, p.norm, S, rows, cached_pairs) + rows * a.decoder_width * W)
    total_parameters = parameters + V * max(a.encoder_width, a.decoder_width)
    return Counts(
        parameters=parameters,
        active_parameters=round(active),
        sparsity=1 - active / parameters,
        flops=round(papers + 2 * _expert_products(a, S, T, expected)),
        flops_min=round(papers + 2 * _expert_products(a, S, T, smallest)),
        flops_max=round(papers + 2 * _expert_products(a, S, T, largest)),
        total_parameters=total_parameters,
        total_flops=round(translation + 2 * _expert_products(a, S, rows, expected)),
        memory_bytes=FLOAT32_BYTES * (total_parameters + _peak_values(a, layers, p)),
    )


def _expert_calls(layers: Sequence[Layer], shares: RoutingShares | None) -> list[list[float]]:
    """For every layer, how often each expert is called per token; a layer's calls sum to its top-k."""
    shares = shares or {}
    names = {layer.name for layer in layers}
    problems = [f"{name}: the architecture has no such layer" for name in shares if name not in names]
    calls = []
    for layer in layers:
        feed_forward = layer.feed_forward
        n, k = len(feed_forward.experts), feed_forward.top_k
        share_E = shares.get(layer.name)
        if share_E is None:
            calls.append([k / n] * n)
        elif len(share_E) != n:
            problems.append(f"{layer.name}: {len(share_E)} shares, but {n} experts")
        elif any(not 0 <= share <= 1 / k + 1e-6 for share in share_E) or abs(sum(share_E) - 1) > 1e-6:
            # A token goes to k different experts: no expert can get more than one assignment in k.
            problems.append(f"{layer.name}: expected shares of 0 to 1/{k} that sum to 1, got {list(share_E)}")
        else:
            calls.append([k * share for share in share_E])
    if problems:
        raise InputError("these routing shares do not fit the architecture", problems)
    return calls


def _always_active_parameters(a: Architecture, layers: Sequence[Layer], norm: Norm) -> int:
    """All but embedding and experts. A linear layer has a bias, a router none; a layer norm two vectors."""
    q, enc, dec = a.qkv_dim, a.encoder_width, a.decoder_width
    total = 2 * enc + 2 * dec if norm == "pre" else 0
    for layer in layers:
        width = layer.width
        for sublayer in layer.sublayers:
            total += 2 * width  # its layer norm
            match sublayer:
                case SelfAttention():
                    total += 3 * (width + 1) * q + (q + 1) * width
                case AverageAttention():
                    total += 4 * width * width + 2 * width
                case Ssru():
                    total += 2 * width * width + width
                case CrossAttention():
                    total += (width + 1) * q + 2 * (enc + 1) * q + (q + 1) * width
                case FeedForward(experts):
                    total += width * len(experts) if len(experts) > 1 else 0
                case _:
                    assert_never(sublayer)
    return total


def _expert_parameters(width: int, size: int) -> int:
    return (width + 1) * size + (size + 1) * width if size else 0


def _products(
    a: Architecture, layers: Sequence[Layer], norm: Norm, S: int, R: int, decoder_pairs: int
) -> int:
    """Multiply-accumulates of an encoder pass over S tokens and of R decoder rows, the experts' own apart.

    Those of linear layers (routers included); of both matrix products of an attention, queries by keys
    and weights by values; one for each element that a layer norm puts out, and one for each elementwise
    product (scaling of embeddings and queries, gates of experts, of average attention and of SSRUs; and the
    mean of average attention).

    Args:
        decoder_pairs: query-key pairs of one decoder self-attention.
    """
    q, enc, dec = a.qkv_dim, a.encoder_width, a.decoder_width
    total = S * enc + R * dec
    if norm == "pre":
        total += S * enc * a.encoder_outputs_attended + R * dec
    for layer in layers:
        width = layer.width
        rows, pairs = (S, S * S) if layer.stack == "encoder" else (R, decoder_pairs)
        for sublayer in layer.sublayers:
            total += rows * width  # its layer norm
            match sublayer:
                case SelfAttention():
                    total += 4 * rows * width * q + rows * q + 2 * pairs * q
                case AverageAttention():
                    total += 4 * rows * width * width + 3 * rows * width
                case Ssru():
                    total += 2 * rows * width * width + 2 * rows * width
                case CrossAttention(_, attended):
                    keys = S * attended
                    total += 2 * rows * width * q + 2 * keys * enc * q + rows * q + 2 * rows * keys * q
                case FeedForward(experts, top_k):
                    total += rows * width * (len(experts) + top_k) if len(experts) > 1 else 0
                case _:
                    assert_never(sublayer)
    return total


def _traced_products(layers: Sequence[Layer], S: int, T: int) -> int:
    """What else the papers count.

    The published figures come from a tracer, which also saw one product per position (position times
    padding mask) and three per attention (batch times heads, for the shapes of q, k and v). This is
    inferred: it is what makes the three figures known to the last digit come out.
    """
    total = S + T
    for layer in layers:
        for sublayer in layer.sublayers:
            match sublayer:
                case SelfAttention() | CrossAttention():
                    total += 3
                case AverageAttention() | Ssru() | FeedForward():
                    pass
                case _:
                    assert_never(sublayer)
    return total


def _expert_products(a: Architecture, S: int, R: int, active_ffn_sizes: Sequence[float]) -> float:
    """Multiply-accumulates of the experts, for S encoder tokens and R decoder rows.

    Args:
        active_ffn_sizes: FFN columns a token uses in each layer, encoder first.
    """
    depth = len(a.encoder)
    encoder, decoder = sum(active_ffn_sizes[:depth]), sum(active_ffn_sizes[depth:])
    return 2 * (S * a.encoder_width * encoder + R * a.decoder_width * decoder)


def _peak_values(a: Architecture, layers: Sequence[Layer], p: MeasuringProtocol) -> int:
    """The most numbers alive at once in a translation, weights apart.

    Encoding: the outputs the decoder will attend to, and the widest moment of a sub-layer over S rows.
    Decoding: those outputs, the state of all sub-layers after T steps, and the largest of: the widest
    moment of a sub-layer over one row a beam, the logits, one tensor of the state copied while beams are
    reordered, the attended outputs concatenated for their keys and values. A shortlist's part of the output
    layer is held beside them.
    """
    S, T, W, beam_size = p.source_length, p.target_length, p.output_tokens, p.beam_size
    row_values = dict.fromkeys(STACKS, 0)
    state, copied = W * a.decoder_width if p.shortlist else 0, 0
    for layer in layers:
        for sublayer in layer.sublayers:
            values = layer.width + _inner_values(sublayer, layer.width, a.qkv_dim)
            row_values[layer.stack] = max(row_values[layer.stack], values)
        for tensor in layer.decoder_state(a.qkv_dim) if layer.stack == "decoder" else ():
            values = _state_values(tensor, S, T, beam_size)
            state += values
            if tensor.per != "source":  # which all beams of a sentence share
                copied = max(copied, values)
    outputs = a.encoder_outputs_attended * S * a.encoder_width
    moment = max(beam_size * row_values["decoder"], beam_size * W, copied, outputs)
    return outputs + max(S * row_values["encoder"], state + moment)


def _inner_values(sublayer: SubLayer, width: int, qkv_dim: int) -> int:
    """The most numbers a sub-layer has alive at once for one row, its input apart."""
    match sublayer:
        case SelfAttention():
            return 4 * qkv_dim  # q, k, v and their mixture; attention scores are never materialised
        case AverageAttention():
            return 4 * width  # the input beside the mean, and both gates
        case Ssru():
            return 3 * width  # gate, candidate and the new cell
        case CrossAttention():
            return 2 * qkv_dim  # its keys and values are state
        case FeedForward(_, top_k):
            # The experts' sorted inputs and outputs and the largest hidden layer, whatever the routing:
            # an expert may get every row.
            return 2 * top_k * width + max(sublayer.ffn_sizes)
        case _:
            assert_never(sublayer)


def _state_values(tensor: StateTensor, S: int, T: int, beam_size: int) -> int:
    """The numbers of one tensor of the decoder's state after T steps."""
    entry = tensor.heads * tensor.size
    match tensor.per:
        case "position":
            return beam_size * T * entry
        case "beam":
            return beam_size * entry
        case "source":
            return S * tensor.encoder_layers_attended * entry
        case _:
            assert_never(tensor.per)


def _dot(calls_E: Sequence[float], values_E: Sequence[int]) -> float:
    return sum(calls * value for calls, value in zip(calls_E, values_E, strict=True))
