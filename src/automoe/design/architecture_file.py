"""Architectures in files: this project's YAML, and HAT's and AutoMoE's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

import yaml

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.storage import read_mapping, write_text

HAT_QKV_DIM = 512
"""The HAT format has no `qkv_dim`; HAT's code and models fix it at this."""


def load_architecture(path: str | Path) -> Architecture:
    """Read an architecture from YAML: the project's own format, or HAT's and AutoMoE's.

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
    """Write the project's YAML format.

    Raises:
        InputError: the disk is full or refuses.
    """
    write_text(path, yaml.safe_dump(architecture.to_dict(), sort_keys=False, default_flow_style=None))


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

    def experts(stack: str, length: int) -> list[list[Any]]:
        counts_key = f"{stack}-n-experts-all-subtransformer"
        sizes_key = f"{stack}-ffn-embed-dim-all-subtransformer"
        each_key = f"{stack}-each-expert-ffn-embed-dim-all-subtransformer"
        counts = numbers(counts_key, length, default=1)
        result = []
        for index, size in enumerate(column(each_key if each_key in plain else sizes_key, length)):
            if not isinstance(size, list):
                result.append([size] * counts[index])
                continue
            count = counts[index] if counts_key in plain else len(size)
            if len(size) < count:
                problems.append(f"{stack} layer {index}: {count} experts, but {len(size)} FFN sizes")
            result.append(size[:count])
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
    plain_encoder = [
        {"self_attention_heads": h, "experts": e} for h, e in zip(enc_heads, enc_experts, strict=True)
    ]
    plain_decoder = [
        {
            "self_attention_heads": h,
            "cross_attention_heads": c,
            "experts": e,
            "encoder_layers_attended": 1 if n == -1 else n + 1,
        }
        for h, c, e, n in zip(dec_heads, cross_heads, dec_experts, attended, strict=True)
    ]
    return Architecture.from_dict(
        {
            "encoder_width": enc_width,
            "decoder_width": dec_width,
            "qkv_dim": HAT_QKV_DIM,
            "encoder": plain_encoder,
            "decoder": plain_decoder,
        }
    )
