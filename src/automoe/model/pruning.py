"""Emptying experts: a model without the weights of some, which routes every token as before.

An emptied expert becomes an identity expert (size 0), and its row of the router stays. So the softmax over
the experts, and with it every gate, is what it was: the outputs of all tokens that were not sent to an
emptied expert are the same, to the last bit. Without the row, all gates of the layer would grow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeAlias, TypeVar

import torch

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, Expert
from automoe.model.transformer import Transformer

EMPTY = Expert(0)

Emptied: TypeAlias = Mapping[str, Collection[int]]
"""Layer name, e.g. `encoder.0`, to the indices of experts."""

_LayerT = TypeVar("_LayerT", EncoderLayer, DecoderLayer)


def emptied_architecture(architecture: Architecture, emptied: Emptied) -> Architecture:
    """The architecture with these experts of size 0; a layer keeps the number of its experts.

    Raises:
        ValueError: there is no such layer or expert, or the layer is dense.
    """
    for layer in architecture.layers():
        count = len(layer.feed_forward.experts)
        if any(count == 1 or not 0 <= expert < count for expert in emptied.get(layer.name, ())):
            raise ValueError(f"{layer.name}: has {count} experts, of which {emptied[layer.name]} are no part")
    if unknown := set(emptied) - {layer.name for layer in architecture.layers()}:
        raise ValueError(f"there is no {', '.join(sorted(unknown))}")

    def layers(stack: str, whole: tuple[_LayerT, ...]) -> tuple[_LayerT, ...]:
        return tuple(
            replace(layer, experts=_emptied(layer.experts, emptied.get(f"{stack}.{index}", ())))
            for index, layer in enumerate(whole)
        )

    return replace(
        architecture,
        encoder=layers("encoder", architecture.encoder),
        decoder=layers("decoder", architecture.decoder),
    )


def without_experts(model: Transformer, emptied: Emptied) -> Transformer:
    """A model of its own with copies of all weights but those of the emptied experts; in evaluation mode.

    Raises:
        ValueError: as `emptied_architecture`.
    """
    with torch.device("meta"):
        architecture = emptied_architecture(model.architecture, emptied)
        pruned = Transformer(architecture, model.vocabulary_size, model.options)
    whole = model.state_dict()
    kept = {name: whole[name].detach().clone() for name in pruned.state_dict()}
    pruned.load_state_dict(kept, assign=True)
    return pruned.eval()


def _emptied(experts: tuple[Expert, ...], indices: Collection[int]) -> tuple[Expert, ...]:
    return tuple(EMPTY if index in indices else expert for index, expert in enumerate(experts))
