"""Parameters, FLOPs and memory of an `Architecture`, counted without building a model.

Two accountings stand beside each other:

- The papers' (HAT, AutoMoE): parameters without embeddings and output layer; FLOPs of one teacher-forced
  pass without the output layer. Equal to HAT's published tables in every decimal they print. AutoMoE's
  tables leave the routers out; here they count, in both parameters and FLOPs.
- The honest one (`total_parameters`, `total_flops`, `memory_bytes`): everything, for one sentence
  translated step by step by beam search with a key-value cache.

A FLOP count is twice the multiply-accumulates. Additions, biases, ReLU, softmax and look-ups count 0.

Names: S source and T target tokens, R rows (positions) the decoder computes, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.errors import InputError

RoutingShares = Mapping[str, Sequence[float]]
"""Layer name, e.g. `encoder.0`, to the share of its assignments each expert gets (they sum to 1)."""

FLOAT32_BYTES = 4


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


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-accumulates by kind; `flops` is twice their sum.

    Attributes:
        linear: linear layers, routers included.
        attention: the two matrix products of each attention, queries by keys and weights by values.
        norm: one per element that a layer norm puts out.
        elementwise: one per elementwise product (scaling of embeddings and queries, gates of experts).
    """

    linear: float
    attention: int
    norm: int
    elementwise: int

    @property
    def flops(self) -> float:
        return 2 * (self.linear + self.attention + self.norm + self.elementwise)


def count(
    architecture: Architecture,
    *,
    source_length: int = 30,
    target_length: int = 30,
    vocabulary_size: int = 32768,
    beam_size: int = 5,
    norm: Literal["pre", "post"] = "post",
    routing_shares: RoutingShares | None = None,
) -> Counts:
    """Count everything; takes some tens of microseconds.

    Args:
        source_length, target_length: tokens of the sentence. The papers use 30 for WMT, 23 for IWSLT.
        vocabulary_size: V, for the totals. `beam_size`: for `total_flops` and `memory_bytes`.
        norm: `pre` has one more layer norm at the end of each stack.
        routing_shares: measured shares of some or all layers; the others route uniformly.

    Raises:
        InputError: a length or size below 1; shares of an unknown layer, of another number of experts, or
            impossible ones.
    """
    a = architecture
    _check(
        source_length=source_length,
        target_length=target_length,
        vocabulary_size=vocabulary_size,
        beam_size=beam_size,
    )
    layers, calls = _layers(a), _expert_calls(a, routing_shares)
    active: float
    parameters = active = _always_active_parameters(a, norm)
    expected: list[float] = []
    smallest, largest = [], []
    for (_, width, layer), calls_E in zip(layers, calls, strict=True):
        parameters_E = [_expert_parameters(width, size) for size in layer.experts]
        parameters += sum(parameters_E)
        active += _dot(calls_E, parameters_E)
        expected.append(_dot(calls_E, layer.experts))
        ascending = sorted(layer.experts)
        smallest.append(sum(ascending[: layer.top_k]))
        largest.append(sum(ascending[-layer.top_k :]))

    lengths = source_length, target_length
    papers = _teacher_forced(a, *lengths, norm).flops
    total_parameters = parameters + vocabulary_size * max(a.encoder_width, a.decoder_width)
    peak_values = _peak_values(a, *lengths, vocabulary_size, beam_size)
    rows = beam_size * target_length
    self_pairs = beam_size * target_length * (target_length + 1) // 2  # step t sees t cached keys
    translation = _work(a, source_length, rows, self_pairs, norm).flops
    translation += 2 * _expert_products(a, source_length, rows, expected)
    return Counts(
        parameters=parameters,
        active_parameters=round(active),
        sparsity=1 - active / parameters,
        flops=round(papers + 2 * _expert_products(a, *lengths, expected)),
        flops_min=round(papers + 2 * _expert_products(a, *lengths, smallest)),
        flops_max=round(papers + 2 * _expert_products(a, *lengths, largest)),
        total_parameters=total_parameters,
        total_flops=round(translation + 2 * rows * a.decoder_width * vocabulary_size),
        memory_bytes=FLOAT32_BYTES * (total_parameters + peak_values),
    )


def teacher_forced_work(
    architecture: Architecture,
    *,
    source_length: int = 30,
    target_length: int = 30,
    norm: Literal["pre", "post"] = "post",
    routing_shares: RoutingShares | None = None,
) -> Work:
    """The parts of `Counts.flops`, unrounded; arguments and errors as in `count`."""
    _check(source_length=source_length, target_length=target_length)
    calls = _expert_calls(architecture, routing_shares)
    sizes = [_dot(c, x.experts) for (_, _, x), c in zip(_layers(architecture), calls, strict=True)]
    work = _teacher_forced(architecture, source_length, target_length, norm)
    return replace(
        work, linear=work.linear + _expert_products(architecture, source_length, target_length, sizes)
    )


@lru_cache(maxsize=1)  # one count asks for the same several times
def _layers(a: Architecture) -> tuple[tuple[str, int, EncoderLayer | DecoderLayer], ...]:
    """Name, width and layer, encoder first."""
    encoder = ((f"encoder.{index}", a.encoder_width, layer) for index, layer in enumerate(a.encoder))
    decoder = ((f"decoder.{index}", a.decoder_width, layer) for index, layer in enumerate(a.decoder))
    return (*encoder, *decoder)


def _expert_calls(a: Architecture, shares: RoutingShares | None) -> list[list[float]]:
    """For every layer, how often each expert is called per token; a layer's calls sum to its top-k."""
    shares = shares or {}
    layers = _layers(a)
    names = {name for name, _, _ in layers}
    problems = [f"{name}: the architecture has no such layer" for name in shares if name not in names]
    calls = []
    for name, _, layer in layers:
        n, k = len(layer.experts), layer.top_k
        share_E = shares.get(name)
        if share_E is None:
            calls.append([k / n] * n)
        elif len(share_E) != n:
            problems.append(f"{name}: {len(share_E)} shares, but {n} experts")
        elif any(not 0 <= share <= 1 / k + 1e-6 for share in share_E) or abs(sum(share_E) - 1) > 1e-6:
            # A token goes to k different experts: no expert can get more than one assignment in k.
            problems.append(f"{name}: expected shares of 0 to 1/{k} that sum to 1, got {list(share_E)}")
        else:
            calls.append([k * share for share in share_E])
    if problems:
        raise InputError("these routing shares do not fit the architecture", problems)
    return calls


def _always_active_parameters(a: Architecture, norm: str) -> int:
    """All but embedding and experts. A linear layer has a bias, a router none; a layer norm two vectors."""
    q, enc, dec = a.qkv_dim, a.encoder_width, a.decoder_width

    def attention(memory_width: int, width: int) -> int:
        return (width + 1) * q + 2 * (memory_width + 1) * q + (q + 1) * width

    total = len(a.encoder) * (attention(enc, enc) + 2 * 2 * enc)
    total += len(a.decoder) * (attention(dec, dec) + attention(enc, dec) + 3 * 2 * dec)
    total += sum(width * len(layer.experts) for _, width, layer in _layers(a) if len(layer.experts) > 1)
    return total + (2 * enc + 2 * dec if norm == "pre" else 0)


def _expert_parameters(width: int, size: int) -> int:
    return (width + 1) * size + (size + 1) * width if size else 0


def _teacher_forced(a: Architecture, source_length: int, target_length: int, norm: str) -> Work:
    """A pass over a sentence pair, experts apart, as the papers count: full attention matrices, unmasked."""
    T = target_length
    work = _work(a, source_length, T, T * T, norm)
    # The published figures come from a tracer, which also saw one product per position (position times
    # padding mask) and three per attention (batch times heads, for the shapes of q, k and v). This is
    # inferred: it is what makes the three figures known to the last digit come out.
    traced = source_length + T + 3 * (len(a.encoder) + 2 * len(a.decoder))
    return Work(work.linear, work.attention, work.norm, work.elementwise + traced)


def _work(a: Architecture, S: int, R: int, self_pairs: int, norm: str) -> Work:
    """An encoder pass over S tokens and R decoder rows, without the experts' own products.

    Args:
        self_pairs: query-key pairs of one decoder self-attention.
    """
    q, enc, dec = a.qkv_dim, a.encoder_width, a.decoder_width
    linear = 4 * S * enc * q * len(a.encoder) + 6 * R * dec * q * len(a.decoder)
    attention = 2 * q * (S * S * len(a.encoder) + self_pairs * len(a.decoder))
    for decoder_layer in a.decoder:
        keys = S * decoder_layer.encoder_layers_attended
        linear += 2 * keys * enc * q
        attention += 2 * q * R * keys
    norms = 2 * S * enc * len(a.encoder) + 3 * R * dec * len(a.decoder)
    if norm == "pre":
        norms += S * enc * _outputs_attended(a) + R * dec
    elementwise = S * enc + R * dec + S * q * len(a.encoder) + 2 * R * q * len(a.decoder)
    for index, (_, width, layer) in enumerate(_layers(a)):
        if len(layer.experts) > 1:
            rows = S if index < len(a.encoder) else R
            linear += rows * width * len(layer.experts)
            elementwise += rows * width * layer.top_k
    return Work(linear, attention, norms, elementwise)


def _expert_products(a: Architecture, S: int, R: int, active_ffn_sizes: Sequence[float]) -> float:
    """Multiply-accumulates of the experts, for S encoder tokens and R decoder rows.

    Args:
        active_ffn_sizes: FFN columns a token uses in each layer, encoder first.
    """
    depth = len(a.encoder)
    encoder, decoder = sum(active_ffn_sizes[:depth]), sum(active_ffn_sizes[depth:])
    return 2 * (S * a.encoder_width * encoder + R * a.decoder_width * decoder)


def _peak_values(a: Architecture, S: int, T: int, V: int, beam_size: int) -> int:
    """The most numbers alive at once in a translation, weights apart.

    Encoding: the outputs the decoder will attend to, and the widest moment of a layer over S rows.
    Decoding: those outputs, the cache (per layer, keys and values of T positions for every beam and of
    the attended outputs once), and the largest of: the widest moment of a layer over one row a beam, the
    logits, one buffer of the cache copied while beams are reordered, the attended outputs concatenated
    for their keys and values.

    The widest moment of a layer is its rows' input, with q, k, v and their mixture (attention scores
    are never materialised), or with the experts' sorted inputs and outputs and the largest hidden layer
    (any routing: an expert may get every row).
    """

    def widest_row(width: int, layers: Sequence[EncoderLayer | DecoderLayer]) -> int:
        return width + max(
            max(4 * a.qkv_dim, 2 * layer.top_k * width + max(layer.experts)) for layer in layers
        )

    outputs = _outputs_attended(a) * S * a.encoder_width
    encoding = S * widest_row(a.encoder_width, a.encoder)
    cache = sum(2 * a.qkv_dim * (beam_size * T + S * layer.encoder_layers_attended) for layer in a.decoder)
    moment = max(
        beam_size * widest_row(a.decoder_width, a.decoder),
        beam_size * V,
        beam_size * T * a.qkv_dim,
        outputs,
    )
    return outputs + max(encoding, cache + moment)


def _outputs_attended(a: Architecture) -> int:
    """How many encoder layers' outputs the decoder needs."""
    return max(layer.encoder_layers_attended for layer in a.decoder)


def _dot(calls_E: Sequence[float], values_E: Sequence[int]) -> float:
    return sum(calls * value for calls, value in zip(calls_E, values_E, strict=True))


def _check(**numbers: int) -> None:
    problems = [f"{name}: at least 1, not {value}" for name, value in numbers.items() if value < 1]
    if problems:
        raise InputError("cannot count for this sentence", problems)
