"""`SearchSpace`: which architectures may be searched, as choices per dimension.

All ways to make a member (sample, mutate, cross, the largest and the smallest) walk over the same genes
in the same order and differ only in how they choose a value; so does the membership test. The genes are
the paper's (AutoMoE, Table 2): widths and layer counts of both stacks, and for every layer its heads,
number of experts, FFN sizes, experts a token is sent to, and encoder layers attended; and of a decoder layer
its mixer, where the space has several.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

from automoe.design.architecture import (
    MAX_EXPERTS,
    MAX_LAYERS,
    MIXERS,
    STACKS,
    Architecture,
    DecoderLayer,
    EncoderLayer,
    Expert,
    FfnSize,
    Mixer,
    Width,
)
from automoe.errors import AtLeastOne, InputError, checked, validate_plain
from automoe.storage import read_mapping

Choose = Callable[[Sequence[int], Sequence[int]], int]
"""Choose a gene's value: from all it may have, given those the parents have, if any."""

LayerT = TypeVar("LayerT", EncoderLayer, DecoderLayer)


def _distinct(choices: tuple[int | str, ...]) -> tuple[int | str, ...]:
    if len(set(choices)) < len(choices):
        raise ValueError("a choice occurs twice")
    return choices


_Few = (Field(min_length=1), AfterValidator(_distinct))
Choices = Annotated[tuple[AtLeastOne, ...], *_Few]
WidthChoices = Annotated[tuple[Width, ...], *_Few]
DepthChoices = Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_LAYERS)], ...], *_Few]
SizeChoices = Annotated[tuple[FfnSize, ...], *_Few]
MixerChoices = Annotated[tuple[Mixer, ...], *_Few]


@dataclass(frozen=True, kw_only=True)
class StackSpace:
    """The choices both stacks have. Every tuple holds the values one gene may take.

    Args:
        widths: of the model.
        layer_counts: numbers of layers.
        self_attention_heads: heads of a layer.
        ffn_sizes: of an expert; 0 is an identity expert.
        max_experts: a layer has 1 to this many experts.
        top_k: experts a token is sent to. In a layer with fewer experts it means all of them.
    """

    widths: WidthChoices
    layer_counts: DepthChoices
    self_attention_heads: Choices
    ffn_sizes: SizeChoices
    max_experts: Annotated[int, Field(ge=1, le=MAX_EXPERTS)] = 1
    top_k: Choices = (1,)

    def __post_init__(self) -> None:
        problems = [
            f"top_k: {k}, but a layer has at most {self.max_experts} experts"
            for k in self.top_k
            if k > self.max_experts
        ]
        if problems:
            raise InputError("this space is impossible", problems)

    def top_k_choices(self, experts: int) -> tuple[int, ...]:
        """The distinct values `top_k` may take in a layer with this many experts."""
        return tuple(sorted({min(k, experts) for k in self.top_k}))


@checked("this space is impossible")
@dataclass(frozen=True, kw_only=True)
class EncoderSpace(StackSpace):
    """The choices of the encoder."""


@checked("this space is impossible")
@dataclass(frozen=True, kw_only=True)
class DecoderSpace(StackSpace):
    """The choices of the decoder: those of an encoder, and of the attention over the encoder.

    Args:
        cross_attention_heads: heads of a layer's attention over the encoder.
        encoder_layers_attended: how many of the last encoder layers it sees. A choice counts only
            where the encoder has that many layers.
        mixers: what looks at the positions before, self-attention or a kind that costs the same at every
            position. `self_attention_heads` are those of layers with self-attention.
    """

    cross_attention_heads: Choices
    encoder_layers_attended: Choices = (1,)
    mixers: MixerChoices = ("self_attention",)

    def attended_choices(self, encoder_layers: int) -> tuple[int, ...]:
        """The values `encoder_layers_attended` may take with an encoder of this depth."""
        return tuple(n for n in self.encoder_layers_attended if n <= encoder_layers)


@checked("this space is impossible")
@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A set of architectures: every combination of the choices.

    Args:
        qkv_dim: of every attention; all head counts divide it.
        encoder, decoder: the choices of the stacks.
        experts: `standard` gives the experts of one layer one size, `fractional` gives each its own.
        placement: `free` lets each layer draw its number of experts; `every` gives every layer
            `max_experts`; `every_other` gives the second, fourth, ... layer `max_experts` and the others
            one (as Switch does).

    Raises:
        InputError: listing every value that is wrong or can never be used.
    """

    qkv_dim: Width
    encoder: EncoderSpace
    decoder: DecoderSpace
    experts: Literal["standard", "fractional"] = "standard"
    placement: Literal["free", "every", "every_other"] = "free"

    def __post_init__(self) -> None:
        problems = [*_head_problems(self), *_depth_problems(self)]
        if problems:
            raise InputError("this space is impossible", problems)

    @staticmethod
    def from_dict(plain: Any) -> SearchSpace:
        """A space from plain keys and values, as in `recipes/spaces/`.

        Raises:
            InputError: unknown or missing keys, wrong types, impossible values; every one is listed.
        """
        return validate_plain(SearchSpace, plain, "this is not a search space")

    def to_dict(self) -> dict[str, Any]:
        """Plain keys and values; `from_dict` is its inverse.

        Mixers are not written where self-attention is the only one: digests of such spaces know no other.
        """
        plain = asdict(self)
        if self.decoder.mixers == ("self_attention",):
            del plain["decoder"]["mixers"]
        return plain

    def sample(self, rng: random.Random) -> Architecture:
        """A random member: each gene uniform over its choices (not each member equally likely)."""
        return self._compose((), lambda choices, inherited: rng.choice(choices))

    def mutate(self, parent: Architecture, probability: float, rng: random.Random) -> Architecture:
        """A member like `parent`, with each gene redrawn (perhaps to the same value) with `probability`.

        Genes the parent lacks (more layers, more experts) and values the space lacks are drawn as well.
        """

        def choose(choices: Sequence[int], inherited: Sequence[int]) -> int:
            if inherited and rng.random() >= probability:
                return inherited[0]
            return rng.choice(choices)

        return self._compose((parent,), choose)

    def cross(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """A member that has each gene from `a` or from `b`, equally likely.

        A layer or expert that only one parent has comes from that one. A value that is impossible beside
        the genes chosen before it (more experts a token than experts) is drawn anew.
        """
        return self._compose((a, b), lambda choices, inherited: rng.choice(inherited or choices))

    def size(self) -> int:
        """The exact number of distinct architectures.

        The order of a layer's experts counts, because sub-networks share weights by position. Layers
        beyond the layer count are not part of an architecture and do not count.
        """

        def layer(stack: StackSpace, index: int) -> int:
            """Choices for mixer, heads, experts and top-k of one layer."""
            mixers: tuple[Mixer, ...] = getattr(stack, "mixers", ("self_attention",))
            total = 0
            for count in self._expert_counts(stack, index):
                sizes = len(stack.ffn_sizes) ** (count if self.experts == "fractional" else 1)
                total += sizes * len(stack.top_k_choices(count))
            heads = {"self_attention": len(stack.self_attention_heads)}
            return total * sum(heads.get(mixer, 1) for mixer in mixers)

        total = 0
        for encoder_depth in self.encoder.layer_counts:
            encoders = math.prod(layer(self.encoder, index) for index in range(encoder_depth))
            cross = len(self.decoder.cross_attention_heads) * len(
                self.decoder.attended_choices(encoder_depth)
            )
            for decoder_depth in self.decoder.layer_counts:
                total += encoders * math.prod(
                    cross * layer(self.decoder, index) for index in range(decoder_depth)
                )
        return len(self.encoder.widths) * len(self.decoder.widths) * total

    def __contains__(self, architecture: object) -> bool:
        """Whether the architecture is a member."""
        if not isinstance(architecture, Architecture):
            return False
        # Rebuilt from its own genes; a gene that is no choice is replaced, so that the result differs.
        return self._compose((architecture,), lambda choices, own: (own or choices)[0]) == architecture

    def largest(self) -> Architecture:
        """The member with every gene at its maximum, of mixers the last in `MIXERS`.

        Any member is a leading block of it, but for mixers that it has not.
        """
        return self._compose((), lambda choices, inherited: max(choices))

    def smallest(self) -> Architecture:
        """The member with every gene at its minimum, of mixers the first in `MIXERS`.

        None is cheaper in any count, as long as no width is more than `qkv_dim` (with SSRUs, twice that).
        """
        return self._compose((), lambda choices, inherited: min(choices))

    def largest_dense(self) -> Architecture:
        """The largest shape with one expert a layer; a member if dense layers are."""
        return self.dense().largest()

    def dense(self) -> SearchSpace:
        """The same space with one expert a layer (HAT's)."""
        return replace(
            self,
            encoder=replace(self.encoder, max_experts=1, top_k=(1,)),
            decoder=replace(self.decoder, max_experts=1, top_k=(1,)),
        )

    def uniform(self, dense: Architecture) -> Architecture:
        """A Switch Transformer (Fedus et al., 2022) of the shape of `dense`.

        The second, fourth, ... layer of both stacks has as many experts as any layer of the space may
        have, all as large as the layer's FFN; a token goes to one of them. Need not be a member.
        """
        experts = max(self.encoder.max_experts, self.decoder.max_experts)

        def widen(layers: tuple[LayerT, ...]) -> tuple[LayerT, ...]:
            return tuple(
                replace(layer, experts=layer.experts[:1] * experts) if index % 2 else layer
                for index, layer in enumerate(layers)
            )

        return replace(dense, encoder=widen(dense.encoder), decoder=widen(dense.decoder))

    def _compose(self, parents: tuple[Architecture, ...], choose: Choose) -> Architecture:
        """Walk over the genes; `choose` decides each. It sees the parents' values that are possible here."""

        def gene(choices: Sequence[int], inherited: Iterator[int]) -> int:
            return choose(choices, [value for value in inherited if value in choices])

        def experts(
            stack: StackSpace, index: int, layers: Sequence[EncoderLayer | DecoderLayer]
        ) -> tuple[tuple[Expert, ...], int]:
            count = gene(self._expert_counts(stack, index), (len(x.experts) for x in layers))
            if self.experts == "standard":
                sizes = (gene(stack.ffn_sizes, (x.ffn_sizes[0] for x in layers)),) * count
            else:
                sizes = tuple(
                    gene(stack.ffn_sizes, (x.ffn_sizes[e] for x in layers if e < len(x.experts)))
                    for e in range(count)
                )
            return tuple(map(_expert, sizes)), gene(stack.top_k_choices(count), (x.top_k for x in layers))

        encoder_depth = gene(self.encoder.layer_counts, (len(p.encoder) for p in parents))
        decoder_depth = gene(self.decoder.layer_counts, (len(p.decoder) for p in parents))

        def encoder_layer(index: int) -> EncoderLayer:
            layers = [p.encoder[index] for p in parents if index < len(p.encoder)]
            heads = gene(self.encoder.self_attention_heads, (x.self_attention_heads for x in layers))
            return EncoderLayer(heads, *experts(self.encoder, index, layers))

        ranks = [rank for rank, mixer in enumerate(MIXERS) if mixer in self.decoder.mixers]

        def mixer_and_heads(layers: Sequence[DecoderLayer]) -> tuple[Mixer, int]:
            # One mixer is no gene, and draws nothing.
            rank = gene(ranks, (MIXERS.index(x.mixer) for x in layers)) if len(ranks) > 1 else ranks[0]
            if MIXERS[rank] != "self_attention":
                return MIXERS[rank], 0
            heads = gene(self.decoder.self_attention_heads, (x.self_attention_heads for x in layers))
            return MIXERS[rank], heads

        def decoder_layer(index: int) -> DecoderLayer:
            layers = [p.decoder[index] for p in parents if index < len(p.decoder)]
            mixer, heads = mixer_and_heads(layers)
            return DecoderLayer(
                heads,
                gene(self.decoder.cross_attention_heads, (x.cross_attention_heads for x in layers)),
                *experts(self.decoder, index, layers),
                gene(
                    self.decoder.attended_choices(encoder_depth), (x.encoder_layers_attended for x in layers)
                ),
                mixer,
            )

        return Architecture(
            encoder_width=gene(self.encoder.widths, (p.encoder_width for p in parents)),
            decoder_width=gene(self.decoder.widths, (p.decoder_width for p in parents)),
            qkv_dim=self.qkv_dim,
            encoder=tuple(encoder_layer(index) for index in range(encoder_depth)),
            decoder=tuple(decoder_layer(index) for index in range(decoder_depth)),
        )

    def _expert_counts(self, stack: StackSpace, index: int) -> Sequence[int]:
        """How many experts the layer with this index may have."""
        if self.placement == "free":
            return range(1, stack.max_experts + 1)
        return (stack.max_experts if self.placement == "every" or index % 2 else 1,)


# One value a size: a search makes many architectures.
_expert = cache(Expert)


def load_space(path: str | Path) -> SearchSpace:
    """Read a search space from YAML; `recipes/spaces/` has examples that explain every key.

    Raises:
        InputError: the file cannot be read or does not describe a space; every problem is listed.
    """
    plain = read_mapping(path)
    try:
        return SearchSpace.from_dict(plain)
    except InputError as error:
        raise InputError(f"{path}: {error.summary}", error.problems) from error


def space_misfits(part: SearchSpace, space: SearchSpace) -> list[str]:
    """Where members of `part` cannot have the weights of the supernet of `space`; nothing if all can."""
    known = ", ".join(space.decoder.mixers)
    return misfits(part.largest(), space.largest()) + [
        f"decoder.mixers: {mixer}, but there are only {known}"
        for mixer in part.decoder.mixers
        if mixer not in space.decoder.mixers
    ]


def misfits(small: Architecture, large: Architecture) -> list[str]:
    """Where `small` is no leading block of `large`, whatever their mixers; nothing if it is one."""
    pairs = [("encoder_width", small.encoder_width, large.encoder_width)]
    pairs += [("decoder_width", small.decoder_width, large.decoder_width)]
    for stack in STACKS:
        few, many = getattr(small, stack), getattr(large, stack)
        pairs.append((f"{stack} layers", len(few), len(many)))
        for index, (a, b) in enumerate(zip(few, many, strict=False)):
            pairs.append((f"{stack}[{index}] experts", len(a.experts), len(b.experts)))
            sizes = enumerate(zip(a.ffn_sizes, b.ffn_sizes, strict=False))
            pairs += [(f"{stack}[{index}].experts[{e}] FFN size", x, y) for e, (x, y) in sizes]
    problems = [
        f"{name}: {value}, but there are at most {most}" for name, value, most in pairs if value > most
    ]
    if small.qkv_dim != large.qkv_dim:
        problems.insert(0, f"qkv_dim: {small.qkv_dim}, but it is {large.qkv_dim} there")
    return problems


def _head_problems(space: SearchSpace) -> Iterator[str]:
    for name, stack in (("encoder", space.encoder), ("decoder", space.decoder)):
        for field in fields(stack):
            if field.name.endswith("_heads"):
                for heads in getattr(stack, field.name):
                    if space.qkv_dim % heads:
                        yield f"{name}.{field.name}: {heads} does not divide qkv_dim {space.qkv_dim}"


def _depth_problems(space: SearchSpace) -> Iterator[str]:
    attended, depths = space.decoder.encoder_layers_attended, space.encoder.layer_counts
    name = "decoder.encoder_layers_attended"
    if min(attended) > min(depths):
        yield f"{name}: none of {list(attended)} is possible with an encoder of {min(depths)} layers"
    for n in attended:
        if n > max(depths):
            yield f"{name}: {n}, but the encoder has at most {max(depths)} layers"
