"""`Architecture`: the immutable value that describes one Transformer, dense or sparse.

A dense Transformer-Base, a Switch Transformer, a HAT model and an AutoMoE model are all just
architectures. Everything else in the package (model, costs, search, pictures) is a function of one, and
walks over its `layers()`, matching on the kind of each sub-layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, cached_property, lru_cache
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, assert_never

from pydantic import BeforeValidator, Field

from automoe.errors import AtLeastOne, AtLeastZero, InputError, checked, validate_plain

Stack: TypeAlias = Literal["encoder", "decoder"]
Norm: TypeAlias = Literal["pre", "post"]
STACKS: tuple[Stack, ...] = ("encoder", "decoder")
Mixer: TypeAlias = Literal["self_attention", "average_attention", "ssru"]
MIXERS: tuple[Mixer, ...] = ("ssru", "average_attention", "self_attention")
"""How a decoder layer may look at the positions before its own; the one with the fewest weights first."""
# Far above every published model. What is larger is a slip, which would fill the memory before it fails.
MAX_SIZE = 1_000_000
MAX_LAYERS = 1000
MAX_EXPERTS = 4096

Width = Annotated[int, Field(ge=1, le=MAX_SIZE)]
FfnSize = Annotated[int, Field(ge=0, le=MAX_SIZE)]


@checked("this expert is impossible")
@dataclass(frozen=True, slots=True)
class Expert:
    """One feed-forward network.

    Args:
        size: its FFN size; 0 is an identity expert, which returns its input and costs nothing.
    """

    size: FfnSize

    def to_plain(self) -> int | dict[str, Any]:
        """As in files: a bare number, or keys and values where it has more than a size."""
        more = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "size" and getattr(self, field.name) != field.default
        }
        return {"size": self.size, **more} if more else self.size


def _expert(value: Any) -> Any:
    """A bare number, as in files, is an expert of that size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return Expert(value)
    if not isinstance(value, Expert | Mapping):
        raise ValueError("expected an FFN size")
    return value


Experts = Annotated[
    tuple[Annotated[Expert, BeforeValidator(_expert)], ...], Field(min_length=1, max_length=MAX_EXPERTS)
]


StatePer: TypeAlias = Literal["position", "beam", "source"]


@dataclass(frozen=True, slots=True)
class StateTensor:
    """One tensor that a decoder sub-layer keeps from step to step; engines store and reorder it.

    Attributes:
        name: unique within a decoder layer.
        per: what there is an entry for: each `position` so far of each beam (grows with every step); each
            `beam` (replaced every step); each attended position of the `source` (made once a sentence,
            shared by its beams).
        heads, size: an entry is heads x size numbers.
        encoder_layers_attended: of `source`: its positions count once for each.
    """

    name: str
    per: StatePer
    heads: int
    size: int
    encoder_layers_attended: int = 1


@cache
def _keys_values(of: str, per: StatePer, heads: int, size: int, attended: int = 1) -> tuple[StateTensor, ...]:
    return tuple(StateTensor(f"{of}_{kind}", per, heads, size, attended) for kind in ("keys", "values"))


@dataclass(frozen=True, slots=True)
class SelfAttention:
    """Every position attends to those of its own stack (in the decoder, to those before it)."""

    module_name: ClassVar[str] = "attention"
    heads: int

    def decoder_state(self, width: int, qkv_dim: int) -> tuple[StateTensor, ...]:
        """What it keeps between steps, in a decoder of this width."""
        return _keys_values("self", "position", self.heads, qkv_dim // self.heads)


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """Every decoder position attends to the outputs of the last `encoder_layers_attended` encoder layers."""

    module_name: ClassVar[str] = "cross"
    heads: int
    encoder_layers_attended: int

    def decoder_state(self, width: int, qkv_dim: int) -> tuple[StateTensor, ...]:
        """What it keeps between steps, in a decoder of this width."""
        size = qkv_dim // self.heads
        return _keys_values("cross", "source", self.heads, size, self.encoder_layers_attended)


@dataclass(frozen=True)
class FeedForward:
    """A dense FFN (one expert, no router) or a mixture; a token is sent to `top_k` experts."""

    module_name: ClassVar[str] = "ffn"
    experts: tuple[Expert, ...]
    top_k: int

    @cached_property
    def ffn_sizes(self) -> tuple[int, ...]:
        """The size of each expert."""
        return tuple(expert.size for expert in self.experts)

    def decoder_state(self, width: int, qkv_dim: int) -> tuple[StateTensor, ...]:
        """Nothing is kept: each token is computed by itself."""
        return ()


@dataclass(frozen=True, slots=True)
class AverageAttention:
    """Average attention (AAN; Zhang et al., 2018), gated and without its feed-forward network.

    Of the paper's two options, the gate stays and the feed-forward network behind the average goes: with the
    mean g of the inputs up to a position and its own input y, the update is `i * y + f * g`, where the gates
    i and f are `sigmoid(W [y; g] + b)`. It keeps one running sum a beam, however long the translation.
    """

    module_name: ClassVar[str] = "average"

    def decoder_state(self, width: int, qkv_dim: int) -> tuple[StateTensor, ...]:
        """What it keeps between steps, in a decoder of this width."""
        return (StateTensor("average_sum", "beam", heads=1, size=width),)


@dataclass(frozen=True, slots=True)
class Ssru:
    """The simpler simple recurrent unit (SSRU; Kim et al., 2019), in the place of self-attention.

    Of the input x at position t: `f_t = sigmoid(W_f x_t + b_f)`, `c_t = f_t * c_{t-1} + (1 - f_t) * W x_t`
    with c zero before the first position, and the update is `relu(c_t)`. It keeps one cell a beam.
    """

    module_name: ClassVar[str] = "ssru"

    def decoder_state(self, width: int, qkv_dim: int) -> tuple[StateTensor, ...]:
        """What it keeps between steps, in a decoder of this width."""
        return (StateTensor("ssru_cell", "beam", heads=1, size=width),)


# One value for equal ones: a search walks over many architectures of few kinds of layers.
_feed_forward = lru_cache(maxsize=4096)(FeedForward)


SubLayer: TypeAlias = SelfAttention | AverageAttention | Ssru | CrossAttention | FeedForward
"""The kinds there are. Match on them with `assert_never`: mypy then lists every place a new one needs.

`module_name` is of a kind's module in its layer, and so a part of the names of weights on disk.
"""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an architecture, as `Architecture.layers` walks over them.

    Attributes:
        stack, index: where it is. `width`: of its stack.
        sublayers: in the order a token passes them.
    """

    stack: Stack
    index: int
    width: int
    sublayers: tuple[SubLayer, ...]

    @property
    def name(self) -> str:
        """E.g. `encoder.0`."""
        return f"{self.stack}.{self.index}"

    @property
    def feed_forward(self) -> FeedForward:
        """Its feed-forward sub-layer; every layer has one."""
        for sublayer in self.sublayers:
            match sublayer:
                case FeedForward():
                    return sublayer
                case SelfAttention() | AverageAttention() | Ssru() | CrossAttention():
                    pass
                case _:
                    assert_never(sublayer)
        raise AssertionError(f"{self.name} has no feed-forward sub-layer")

    def decoder_state(self, qkv_dim: int) -> tuple[StateTensor, ...]:
        """What its sub-layers keep between steps."""
        return tuple(
            state for sublayer in self.sublayers for state in sublayer.decoder_state(self.width, qkv_dim)
        )


class _WithExperts:
    """What both kinds of layers do with their experts."""

    __slots__ = ()
    experts: tuple[Expert, ...]
    top_k: int

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise InputError("this layer is impossible", problems)

    def _problems(self) -> Iterator[str]:
        if self.top_k > len(self.experts):
            yield f"top_k: {self.top_k}, but there are {len(self.experts)} experts"

    @property
    def ffn_sizes(self) -> tuple[int, ...]:
        """The size of each expert."""
        return tuple(expert.size for expert in self.experts)


@checked("this layer is impossible")
@dataclass(frozen=True, slots=True)
class EncoderLayer(_WithExperts):
    """One encoder layer: self-attention, then an FFN (one expert) or a mixture of experts.

    Args:
        self_attention_heads: heads; they divide `Architecture.qkv_dim`.
        experts: `Expert`s, or their FFN sizes as numbers. One is a dense FFN without a router.
        top_k: how many experts a token is sent to, at most `len(experts)`.
    """

    self_attention_heads: AtLeastOne
    experts: Experts
    top_k: AtLeastOne = 1

    def sublayers(self) -> tuple[SubLayer, ...]:
        """Its sub-layers, in the order a token passes them."""
        return SelfAttention(self.self_attention_heads), _feed_forward(self.experts, self.top_k)


@checked("this layer is impossible")
@dataclass(frozen=True, slots=True)
class DecoderLayer(_WithExperts):
    """One decoder layer: a mixer of positions, cross-attention, then an FFN or a mixture of experts.

    Args:
        self_attention_heads, experts, top_k: as in `EncoderLayer`; a mixer that is no self-attention has 0
            heads.
        cross_attention_heads: heads of the attention over the encoder.
        encoder_layers_attended: cross-attention sees the outputs of this many of the last encoder
            layers, concatenated along the length (HAT's "arbitrary encoder-decoder attention").
        mixer: what looks at the positions before: self-attention, average attention, or an SSRU.
    """

    self_attention_heads: AtLeastZero
    cross_attention_heads: AtLeastOne
    experts: Experts
    top_k: AtLeastOne = 1
    encoder_layers_attended: AtLeastOne = 1
    mixer: Mixer = "self_attention"

    def _problems(self) -> Iterator[str]:
        yield from _WithExperts._problems(self)
        heads = self.self_attention_heads
        if self.mixer == "self_attention" and not heads:
            yield f"self_attention_heads: expected at least 1, got {heads}"
        if self.mixer != "self_attention" and heads:
            yield f"self_attention_heads: {heads}, but {self.mixer} has none: write 0"

    def sublayers(self) -> tuple[SubLayer, ...]:
        """Its sub-layers, in the order a token passes them."""
        return (
            _mixer(self.mixer, self.self_attention_heads),
            CrossAttention(self.cross_attention_heads, self.encoder_layers_attended),
            _feed_forward(self.experts, self.top_k),
        )


def _mixer(mixer: Mixer, heads: int) -> SubLayer:
    match mixer:
        case "self_attention":
            return SelfAttention(heads)
        case "average_attention":
            return AverageAttention()
        case "ssru":
            return Ssru()
        case _:
            assert_never(mixer)


@checked("this architecture is impossible")
@dataclass(frozen=True)
class Architecture:
    """A whole encoder-decoder Transformer, without its vocabulary.

    Args:
        encoder_width, decoder_width: the model ("embedding") dimension of each stack.
        qkv_dim: the dimension all heads of one attention share; fixed by a search space.
        encoder, decoder: the layers, first to last.

    Raises:
        InputError: listing every rule the values break.
    """

    encoder_width: Width
    decoder_width: Width
    qkv_dim: Width
    encoder: Annotated[tuple[EncoderLayer, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    decoder: Annotated[tuple[DecoderLayer, ...], Field(min_length=1, max_length=MAX_LAYERS)]

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InputError("this architecture is impossible", problems)

    def layers(self, stack: Stack | None = None) -> tuple[Layer, ...]:
        """Every layer with its sub-layers, encoder first; or those of one stack."""
        if stack is None:
            return self._layers
        return tuple(layer for layer in self._layers if layer.stack == stack)

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        encoder = (
            Layer("encoder", index, self.encoder_width, layer.sublayers())
            for index, layer in enumerate(self.encoder)
        )
        decoder = (
            Layer("decoder", index, self.decoder_width, layer.sublayers())
            for index, layer in enumerate(self.decoder)
        )
        return (*encoder, *decoder)

    @property
    def encoder_outputs_attended(self) -> int:
        """How many of the last encoder layers' outputs the decoder needs."""
        return max(layer.encoder_layers_attended for layer in self.decoder)

    @property
    def is_dense(self) -> bool:
        """Whether every layer has one expert."""
        return self.experts_a_layer == 1

    @property
    def experts_a_layer(self) -> float:
        """Mean number of experts over all layers."""
        counts = [len(layer.experts) for layer in (*self.encoder, *self.decoder)]
        return sum(counts) / len(counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for YAML or JSON; `from_dict` is its inverse.

        A mixer that is self-attention is not written: files and digests of such architectures know no other.
        """
        plain = asdict(self)
        stacks: tuple[tuple[Stack, Sequence[EncoderLayer | DecoderLayer]], ...] = (
            ("encoder", self.encoder),
            ("decoder", self.decoder),
        )
        for stack, layers in stacks:
            plain[stack] = [
                {**values, "experts": [expert.to_plain() for expert in layer.experts]}
                for values, layer in zip(plain[stack], layers, strict=True)
            ]
        for values in plain["decoder"]:
            if values["mixer"] == "self_attention":
                del values["mixer"]
        return plain

    @staticmethod
    def from_dict(plain: Any) -> Architecture:
        """The architecture that `to_dict` wrote.

        Raises:
            InputError: unknown or missing keys, wrong types, impossible values.
        """
        return validate_plain(Architecture, plain, "this is not an architecture")

    def __str__(self) -> str:
        """One line, e.g. `512/512 enc[8:2048+1024 8:2048] dec[4/8x2:3072 ssru/8x1:512]` (heads, experts)."""

        def ffn(layer: EncoderLayer | DecoderLayer) -> str:
            return "+".join(map(str, layer.ffn_sizes)) + (f"@{layer.top_k}" if layer.top_k > 1 else "")

        enc = " ".join(f"{x.self_attention_heads}:{ffn(x)}" for x in self.encoder)
        dec = " ".join(
            f"{_MIXER_SIGNS.get(x.mixer, x.self_attention_heads)}/{x.cross_attention_heads}"
            f"x{x.encoder_layers_attended}:{ffn(x)}"
            for x in self.decoder
        )
        return f"{self.encoder_width}/{self.decoder_width} enc[{enc}] dec[{dec}]"

    def _problems(self) -> Iterator[str]:
        for stack, layers in (("encoder", self.encoder), ("decoder", self.decoder)):
            for index, layer in enumerate(layers):
                for name in ("self_attention_heads", "cross_attention_heads"):
                    heads = getattr(layer, name, 1)
                    if heads and self.qkv_dim % heads:
                        yield f"{stack}[{index}].{name}: {heads} does not divide qkv_dim {self.qkv_dim}"
        for index, decoder_layer in enumerate(self.decoder):
            attended, depth = decoder_layer.encoder_layers_attended, len(self.encoder)
            if attended > depth:
                yield (
                    f"decoder[{index}].encoder_layers_attended: {attended}, "
                    f"but the encoder has {depth} layers"
                )


def with_mixer(architecture: Architecture, mixer: Mixer) -> Architecture:
    """The same with this mixer in every decoder layer.

    A layer that gets self-attention gets as many heads as the first one's cross-attention has.
    """
    heads = architecture.decoder[0].cross_attention_heads if mixer == "self_attention" else 0
    layers = tuple(
        layer if layer.mixer == mixer else replace(layer, mixer=mixer, self_attention_heads=heads)
        for layer in architecture.decoder
    )
    return replace(architecture, decoder=layers)


_MIXER_SIGNS: dict[Mixer, str] = {"average_attention": "avg", "ssru": "ssru"}


def dense(width: int, ffn_size: int, heads: int, encoder_layers: int, decoder_layers: int) -> Architecture:
    """The classic dense Transformer (Vaswani et al., 2017), qkv as wide as the model.

    `dense(512, 2048, 8, 6, 6)` is Transformer-Base, `dense(1024, 4096, 16, 6, 6)` Transformer-Big.
    """
    experts = (Expert(ffn_size),)
    return Architecture(
        encoder_width=width,
        decoder_width=width,
        qkv_dim=width,
        encoder=(EncoderLayer(heads, experts),) * encoder_layers,
        decoder=(DecoderLayer(heads, heads, experts),) * decoder_layers,
    )
