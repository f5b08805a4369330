"""`Architecture`: the immutable value that describes one Transformer, dense or sparse.

A dense Transformer-Base, a Switch Transformer, a HAT model and an AutoMoE model are all just
architectures. Everything else in the package (model, costs, search, pictures) is a function of one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from automoe.errors import InputError
from automoe.yaml_file import read_mapping


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    """One encoder layer: self-attention, then an FFN (one expert) or a mixture of experts.

    Args:
        self_attention_heads: heads; they divide `Architecture.qkv_dim`.
        experts: the FFN size of each expert. One entry is a dense FFN without a router; size 0 is
            an identity expert, which returns its input and costs nothing.
        top_k: how many experts a token is sent to, at most `len(experts)`.
    """

    self_attention_heads: int
    experts: tuple[int, ...]
    top_k: int = 1


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One decoder layer: self-attention, cross-attention, then an FFN or a mixture of experts.

    Args:
        self_attention_heads, experts, top_k: as in `EncoderLayer`.
        cross_attention_heads: heads of the attention over the encoder.
        encoder_layers_attended: cross-attention sees the outputs of this many of the last encoder
            layers, concatenated along the length (HAT's "arbitrary encoder-decoder attention").
    """

    self_attention_heads: int
    cross_attention_heads: int
    experts: tuple[int, ...]
    top_k: int = 1
    encoder_layers_attended: int = 1


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole encoder-decoder Transformer, without its vocabulary.

    Args:
        encoder_width, decoder_width: the model ("embedding") dimension of each stack.
        qkv_dim: the dimension all heads of one attention share; fixed by a search space.
        encoder, decoder: the layers, first to last.

    Raises:
        InputError: listing every rule the values break.
    """

    encoder_width: int
    decoder_width: int
    qkv_dim: int
    encoder: tuple[EncoderLayer, ...]
    decoder: tuple[DecoderLayer, ...]

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise InputError("this architecture is impossible", problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for YAML or JSON; `from_dict` is its inverse."""
        plain = asdict(self)
        for stack in ("encoder", "decoder"):
            plain[stack] = [{**layer, "experts": list(layer["experts"])} for layer in plain[stack]]
        return plain

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Architecture:
        """The architecture that `to_dict` wrote.

        Raises:
            InputError: unknown or missing keys, wrong types, impossible values.
        """
        problems: list[str] = []
        _check_keys("architecture", plain, Architecture, problems)
        if not isinstance(plain, dict):
            raise InputError("this is not an architecture", problems)
        stacks: dict[str, tuple[Any, ...]] = {}
        for stack, kind in (("encoder", EncoderLayer), ("decoder", DecoderLayer)):
            layers = plain.get(stack, [])
            if not isinstance(layers, list):
                problems.append(f"{stack}: expected a list of layers, got {layers!r}")
                continue
            for index, layer in enumerate(layers):
                _check_keys(f"{stack}[{index}]", layer, kind, problems)
                experts = layer.get("experts") if isinstance(layer, dict) else None
                if not isinstance(experts, list | tuple):
                    problems.append(f"{stack}[{index}].experts: expected a list of FFN sizes")
            if not problems:
                stacks[stack] = tuple(
                    kind(**{**layer, "experts": tuple(layer["experts"])}) for layer in layers
                )
        if problems:
            raise InputError("this is not an architecture", problems)
        return Architecture(**{**plain, **stacks})

    def __str__(self) -> str:
        """One line, e.g. `512/512 enc[8:2048+1024 8:2048] dec[4/8x2:3072]` (heads, experts)."""

        def ffn(layer: EncoderLayer | DecoderLayer) -> str:
            return "+".join(map(str, layer.experts)) + (f"@{layer.top_k}" if layer.top_k > 1 else "")

        enc = " ".join(f"{x.self_attention_heads}:{ffn(x)}" for x in self.encoder)
        dec = " ".join(
            f"{x.self_attention_heads}/{x.cross_attention_heads}x{x.encoder_layers_attended}:{ffn(x)}"
            for x in self.decoder
        )
        return f"{self.encoder_width}/{self.decoder_width} enc[{enc}] dec[{dec}]"


def load_architecture(path: str | Path) -> Architecture:
    """Read an architecture from YAML: the project's own format, or HAT's and AutoMoE's.

    The HAT format has no `qkv_dim`; HAT's code and models fix it at 512.

    Raises:
        InputError: the file is missing, is not YAML, or does not describe an architecture.
    """
    plain = read_mapping(path)
    try:
        if "encoder-embed-dim-subtransformer" in plain:
            return _from_hat(plain)
        return Architecture.from_dict(plain)
    except InputError as error:
        raise InputError(f"{path}: {error.summary}", error.problems) from error


def save_architecture(architecture: Architecture, path: str | Path) -> None:
    """Write the project's YAML format."""
    text = yaml.safe_dump(architecture.to_dict(), sort_keys=False, default_flow_style=None)
    Path(path).write_text(text, encoding="utf-8")


def dense(width: int, ffn_size: int, heads: int, encoder_layers: int, decoder_layers: int) -> Architecture:
    """The classic dense Transformer (Vaswani et al., 2017), qkv as wide as the model.

    `dense(512, 2048, 8, 6, 6)` is Transformer-Base, `dense(1024, 4096, 16, 6, 6)` Transformer-Big.
    """
    return Architecture(
        encoder_width=width,
        decoder_width=width,
        qkv_dim=width,
        encoder=(EncoderLayer(heads, (ffn_size,)),) * encoder_layers,
        decoder=(DecoderLayer(heads, heads, (ffn_size,)),) * decoder_layers,
    )


def _problems(a: Architecture) -> list[str]:
    found: list[str] = []

    def positive(name: str, value: Any) -> bool:
        # bool is an int in Python; a YAML `true` must not pass for 1.
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not good:
            found.append(f"{name}: expected a whole number of at least 1, got {value!r}")
        return good

    for name in ("encoder_width", "decoder_width"):
        positive(name, getattr(a, name))
    qkv_good = positive("qkv_dim", a.qkv_dim)
    stacks: dict[str, tuple[EncoderLayer | DecoderLayer, ...]] = {"encoder": a.encoder, "decoder": a.decoder}
    for stack, layers in stacks.items():
        if not layers:
            found.append(f"{stack}: expected at least one layer")
        for index, layer in enumerate(layers):
            where = f"{stack}[{index}]"
            heads = {"self_attention_heads": layer.self_attention_heads}
            if isinstance(layer, DecoderLayer):
                heads["cross_attention_heads"] = layer.cross_attention_heads
                attended = layer.encoder_layers_attended
                depth = len(a.encoder)
                if positive(f"{where}.encoder_layers_attended", attended) and attended > depth:
                    found.append(
                        f"{where}.encoder_layers_attended: {attended}, but the encoder has {depth} layers"
                    )
            for name, count in heads.items():
                if positive(f"{where}.{name}", count) and qkv_good and a.qkv_dim % count:
                    found.append(f"{where}.{name}: {count} does not divide qkv_dim {a.qkv_dim}")
            if not layer.experts:
                found.append(f"{where}.experts: expected at least one FFN size")
            for size in layer.experts:
                if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                    found.append(f"{where}.experts: expected whole numbers of at least 0, got {size!r}")
            if positive(f"{where}.top_k", layer.top_k) and layer.top_k > max(1, len(layer.experts)):
                found.append(f"{where}.top_k: {layer.top_k}, but there are {len(layer.experts)} experts")
    return found


def _check_keys(where: str, plain: Any, kind: type, problems: list[str]) -> None:
    if not isinstance(plain, dict):
        problems.append(f"{where}: expected keys and values, got {plain!r}")
        return
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]  # `kind` is always a dataclass
    optional = {"top_k", "encoder_layers_attended"}
    problems += [
        f"{where}.{key}: unknown key (known: {', '.join(fields)})" for key in plain if key not in fields
    ]
    problems += [f"{where}.{key}: missing" for key in fields if key not in plain and key not in optional]


def _from_hat(plain: dict[str, Any]) -> Architecture:
    """HAT's keys: per-layer lists may be longer than the layer count; -1 attends to one layer.

    AutoMoE adds a count of experts per layer, and one FFN size per expert.
    """
    problems: list[str] = []

    def is_number(value: Any) -> TypeGuard[int]:
        # A YAML `true` must not pass for 1.
        return isinstance(value, int) and not isinstance(value, bool)

    def number(key: str) -> int:
        value = plain.get(key)
        if not is_number(value) or value < 0:
            problems.append(f"{key}: expected a number, got {value!r}")
            return 0
        return value

    def column(key: str, length: int, default: int | None = None) -> list[Any]:
        """The entries of the layers in use: numbers, or for experts lists of numbers."""
        values = plain.get(key, None if default is None else [default] * length)
        if not isinstance(values, list) or len(values) < length:
            problems.append(f"{key}: expected a list of at least {length} values, got {values!r}")
            return [1] * length
        return values[:length]

    def numbers(key: str, length: int, default: int | None = None) -> list[int]:
        values = column(key, length, default)
        if not all(map(is_number, values)):
            problems.append(f"{key}: expected numbers, got {values!r}")
            return [1] * length
        return values

    def experts(stack: str, length: int) -> list[tuple[int, ...]]:
        counts_key = f"{stack}-n-experts-all-subtransformer"
        sizes_key = f"{stack}-ffn-embed-dim-all-subtransformer"
        each_key = f"{stack}-each-expert-ffn-embed-dim-all-subtransformer"
        counts = numbers(counts_key, length, default=1)
        result = []
        for index, size in enumerate(column(each_key if each_key in plain else sizes_key, length)):
            if not isinstance(size, list):
                result.append((size,) * counts[index])
                continue
            count = counts[index] if counts_key in plain else len(size)
            if len(size) < count:
                problems.append(f"{stack} layer {index}: {count} experts, but {len(size)} FFN sizes")
            result.append(tuple(size[:count]))
        return result

    enc_depth = number("encoder-layer-num-subtransformer")
    dec_depth = number("decoder-layer-num-subtransformer")
    enc_width = number("encoder-embed-dim-subtransformer")
    dec_width = number("decoder-embed-dim-subtransformer")
    enc_heads = numbers("encoder-self-attention-heads-all-subtransformer", enc_depth)
    dec_heads = numbers("decoder-self-attention-heads-all-subtransformer", dec_depth)
    cross_heads = numbers("decoder-ende-attention-heads-all-subtransformer", dec_depth)
    attended = numbers("decoder-arbitrary-ende-attn-all-subtransformer", dec_depth, default=-1)
    enc_experts, dec_experts = experts("encoder", enc_depth), experts("decoder", dec_depth)
    if problems:
        raise InputError("is not a HAT architecture", problems)
    return Architecture(
        encoder_width=enc_width,
        decoder_width=dec_width,
        qkv_dim=512,
        encoder=tuple(EncoderLayer(h, e) for h, e in zip(enc_heads, enc_experts, strict=True)),
        decoder=tuple(
            DecoderLayer(h, c, e, encoder_layers_attended=1 if n == -1 else n + 1)
            for h, c, e, n in zip(dec_heads, cross_heads, dec_experts, attended, strict=True)
        ),
    )
