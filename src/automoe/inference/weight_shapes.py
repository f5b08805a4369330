"""The names and shapes of a model's weights, without building it."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from automoe.design.architecture import (
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    Layer,
    Norm,
    SelfAttention,
    Ssru,
)

Shapes: TypeAlias = dict[str, tuple[int, ...]]


def weight_shapes(architecture: Architecture, vocabulary_size: int, norm: Norm) -> Shapes:
    """The shape of every tensor in `Transformer.state_dict()`, by name."""
    a = architecture
    shapes: Shapes = {"embedding": (vocabulary_size, max(a.encoder_width, a.decoder_width))}
    for layer in a.layers():
        shapes |= _layer_shapes(layer, a)
    if norm == "pre":
        shapes |= _norm_shapes("encoder_norm", a.encoder_width) | _norm_shapes(
            "decoder_norm", a.decoder_width
        )
    return shapes


def _layer_shapes(layer: Layer, a: Architecture) -> Shapes:
    shapes: Shapes = {}
    for sublayer in layer.sublayers:
        name = f"{layer.name}.{sublayer.module_name}"
        match sublayer:
            case SelfAttention():
                shapes |= _attention_shapes(name, layer.width, layer.width, a.qkv_dim)
            case AverageAttention():
                for gate in ("input_gate", "mean_gate"):
                    shapes |= _linear_shapes(f"{name}.{gate}.of_input", layer.width, layer.width)
                    shapes[f"{name}.{gate}.of_mean.weight"] = (layer.width, layer.width)
            case Ssru():
                shapes |= _linear_shapes(f"{name}.forget", layer.width, layer.width)
                shapes[f"{name}.candidate.weight"] = (layer.width, layer.width)
            case CrossAttention():
                shapes |= _attention_shapes(name, layer.width, a.encoder_width, a.qkv_dim)
            case FeedForward():
                shapes |= _mixture_shapes(f"{name}.mixture", layer.width, sublayer)
            case _:
                assert_never(sublayer)
        shapes |= _norm_shapes(f"{name}_residual.norm", layer.width)
    return shapes


def _attention_shapes(name: str, query_width: int, memory_width: int, qkv_dim: int) -> Shapes:
    return (
        _linear_shapes(f"{name}.q", query_width, qkv_dim)
        | _linear_shapes(f"{name}.k", memory_width, qkv_dim)
        | _linear_shapes(f"{name}.v", memory_width, qkv_dim)
        | _linear_shapes(f"{name}.out", qkv_dim, query_width)
    )


def _mixture_shapes(name: str, width: int, sublayer: FeedForward) -> Shapes:
    shapes: Shapes = {}
    for index, size in enumerate(sublayer.ffn_sizes):
        if size:
            shapes |= _linear_shapes(f"{name}.experts.{index}.up", width, size)
            shapes |= _linear_shapes(f"{name}.experts.{index}.down", size, width)
    if len(sublayer.experts) > 1:
        shapes[f"{name}.router.weight"] = (len(sublayer.experts), width)
    return shapes


def _linear_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
