"""Which models to measure on a device, so that the times of all parts of a space can be solved for.

A part measured by itself would lie: its weights stay in the cache, its threads are awake. So every probe
is a whole model of the space's depth. Its stacks differ from those of other probes in one thing: many
layers have one kind of experts, or none (an identity expert, a feed-forward sub-layer that does nothing),
or other heads, or another mixer; or the layers are few, or the vocabulary is next to nothing. What that
changes is the time of a part. Encoder and decoder are timed apart, so one probe serves both. Some probes are
random members of the space.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from automoe.cost.device.parts import Inventory, Term
from automoe.design.architecture import (
    STACKS,
    Architecture,
    DecoderLayer,
    EncoderLayer,
    Expert,
    Mixer,
    Stack,
)
from automoe.design.space import SearchSpace, StackSpace

WHOLE_MODELS = 12
TINY_VOCABULARY = 64
MOST_EXPERT_PARAMETERS = 64_000_000  # of a stack of a probe: far beyond any cache, yet quick to build
NO_EXPERTS = (Expert(0),)
# Numbers of experts between these are interpolated: the time is smooth in their number.
MEASURED_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class Probe:
    """A model to be measured.

    Attributes:
        full_vocabulary: whether it has the vocabulary that is asked for, or a tiny one.
        whole: a random member of the space.
    """

    architecture: Architecture
    full_vocabulary: bool = True
    whole: bool = False


@dataclass(frozen=True, slots=True)
class _EncoderProbe:
    width: int
    layers: tuple[EncoderLayer, ...]


@dataclass(frozen=True, slots=True)
class _DecoderProbe:
    width: int
    layers: tuple[DecoderLayer, ...]
    full_vocabulary: bool = True


def probes(space: SearchSpace) -> list[Probe]:
    """The models to measure, in a random order that is always the same.

    Random, so that a slow minute of the machine does not fall on one kind of part.
    """
    rng = random.Random(0)
    depth = max(space.encoder.layer_counts)
    encoders = list(_encoder_probes(space, depth))
    decoders = list(_decoder_probes(space, depth))
    rng.shuffle(encoders)
    rng.shuffle(decoders)
    found = []
    waiting = deque(encoders)
    for index in range(max(len(encoders), len(decoders))):
        decoder = decoders[index % len(decoders)]
        attended = max(layer.encoder_layers_attended for layer in decoder.layers)
        encoder = next(e for e in waiting if len(e.layers) >= attended)
        waiting.remove(encoder)
        waiting.append(encoder)
        architecture = Architecture(
            encoder.width, decoder.width, space.qkv_dim, encoder.layers, decoder.layers
        )
        found.append(Probe(architecture, decoder.full_vocabulary))
    found += [Probe(space.sample(rng), whole=True) for _ in range(WHOLE_MODELS)]
    rng.shuffle(found)
    return found


def needed_terms(space: SearchSpace) -> Inventory:
    """The parts that the probes of a space are made of."""
    terms: set[Term] = set()
    depth = max(space.encoder.layer_counts)
    for width in space.encoder.widths:
        terms.add(Term("encoder", "overhead", width))
        terms |= {
            Term(stack, "keys_values", width, layers_attended=attended)
            for stack in STACKS
            for attended in space.decoder.attended_choices(depth)
        }
        terms |= {Term("encoder", "self_attention", width, h) for h in space.encoder.self_attention_heads}
        terms |= {_term("encoder", width, *kind) for kind in _expert_kinds(space, space.encoder)}
    decoder = space.decoder
    for width in decoder.widths:
        terms |= {Term("decoder", "overhead", width), Term("decoder", "output", width)}
        for mixer in decoder.mixers:
            heads = decoder.self_attention_heads if mixer == "self_attention" else (0,)
            terms |= {Term("decoder", mixer, width, count) for count in heads}
        terms |= {
            Term("decoder", "cross_attention", width, heads, attended)
            for heads, attended in product(decoder.cross_attention_heads, decoder.attended_choices(depth))
        }
        terms |= {_term("decoder", width, *kind) for kind in _expert_kinds(space, decoder)}
    return Inventory(terms)


def _term(stack: Stack, width: int, experts: int, top_k: int, size: int) -> Term:
    return Term(stack, "experts", width, experts=experts, top_k=top_k, ffn_size=size)


def _expert_kinds(space: SearchSpace, stack: StackSpace) -> list[tuple[int, int, int]]:
    """(number of experts, top_k, FFN size) to measure in every width of a stack.

    The largest mixture of either stack is measured in both, for the Switch Transformer of the space.
    """
    most = max(space.encoder.max_experts, space.decoder.max_experts)
    counts = sorted({count for count in MEASURED_COUNTS if count <= most} | {most})
    if space.placement != "free":
        counts = sorted({1, space.encoder.max_experts, space.decoder.max_experts})
    # The time is linear in the size, so the ends are enough; without parameters it is another kind.
    sizes = sorted({size for size in stack.ffn_sizes if size > 0})
    ends = sorted({*sizes[:1], *sizes[-1:]})
    identity = [0] if 0 in stack.ffn_sizes else []
    return [
        (count, top_k, size)
        for count in counts
        for top_k in stack.top_k_choices(count)
        for size in ([*identity, *ends] if count > 1 else ends)
    ]


def _encoder_probes(space: SearchSpace, depth: int) -> Iterator[_EncoderProbe]:
    heads = space.encoder.self_attention_heads
    # The decoder layers of a probe attend at least to as many layers as the space lets them.
    shallow = min(space.decoder.attended_choices(depth))
    for width in space.encoder.widths:
        if shallow < depth:
            yield _EncoderProbe(width, (EncoderLayer(heads[0], NO_EXPERTS),) * shallow)
        for count in heads:
            yield _EncoderProbe(width, (EncoderLayer(count, NO_EXPERTS),) * depth)
        for experts, top_k, size in _expert_kinds(space, space.encoder):
            with_experts = _layers_with_experts(width, experts, size, depth)
            yield _EncoderProbe(
                width,
                (EncoderLayer(heads[0], (Expert(size),) * experts, top_k),) * with_experts
                + (EncoderLayer(heads[0], NO_EXPERTS),) * (depth - with_experts),
            )


def _decoder_probes(space: SearchSpace, encoder_depth: int) -> Iterator[_DecoderProbe]:
    decoder = space.decoder
    depth = max(decoder.layer_counts)
    cross_heads = decoder.cross_attention_heads
    mixers: list[tuple[Mixer, int]] = [
        (mixer, heads)
        for mixer in decoder.mixers
        for heads in (decoder.self_attention_heads if mixer == "self_attention" else (0,))
    ]
    attended = sorted(decoder.attended_choices(encoder_depth))

    def layer(
        mixer: tuple[Mixer, int] = mixers[0],
        cross: int = cross_heads[0],
        attended_: int = attended[0],
        experts: tuple[Expert, ...] = NO_EXPERTS,
        top_k: int = 1,
    ) -> DecoderLayer:
        kind, heads = mixer
        return DecoderLayer(heads, cross, experts, top_k, attended_, kind)

    for width in decoder.widths:
        yield _DecoderProbe(width, (layer(),), full_vocabulary=False)
        if depth > 1:
            yield _DecoderProbe(width, (layer(),))
        for mixer in mixers[1:]:
            yield _DecoderProbe(width, (layer(mixer),) * depth)
        for heads, seen in product(cross_heads, attended):
            yield _DecoderProbe(width, (layer(cross=heads, attended_=seen),) * depth)
        for experts, top_k, size in _expert_kinds(space, decoder):
            with_experts = _layers_with_experts(width, experts, size, depth)
            mixture = layer(experts=(Expert(size),) * experts, top_k=top_k)
            yield _DecoderProbe(width, (mixture,) * with_experts + (layer(),) * (depth - with_experts))


def _layers_with_experts(width: int, experts: int, size: int, depth: int) -> int:
    parameters = 2 * width * size * experts
    return min(depth, max(1, MOST_EXPERT_PARAMETERS // max(1, parameters)))
