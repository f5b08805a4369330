"""One layer of a Transformer as a module: its sub-layers in a row, each with its residual connection.

Shapes: B sentences, X positions (source or target), K beams, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never, cast

from torch import Tensor, nn
from torch.nn import functional as F

from automoe.design.architecture import (
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    Layer,
    Norm,
    SelfAttention,
    Ssru,
    SubLayer,
)
from automoe.model.experts import Routing
from automoe.model.mixers import AverageAttentionModule, SsruModule
from automoe.model.sublayers import (
    Context,
    CrossAttentionModule,
    FeedForwardModule,
    SelfAttentionModule,
    SubLayerModule,
)


class Residual(nn.Module):
    """`norm(x + f(x))` or `x + f(norm(x))`, with dropout on f's output."""

    def __init__(self, width: int, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pre = norm == "pre"
        self.dropout = dropout

    def before(self, x: Tensor) -> Tensor:
        """The input of f."""
        return self.norm(x) if self.pre else x

    def after(self, x: Tensor, update: Tensor) -> Tensor:
        """The sum with f's output."""
        x = x + F.dropout(update, self.dropout, self.training)
        return x if self.pre else self.norm(x)


class Block(nn.Module):
    """One layer: its sub-layers, each with its residual connection.

    Args:
        architecture: whose layer it is. `layer`: which. `norm`, `dropout`: of its residual connections.
    """

    def __init__(self, architecture: Architecture, layer: Layer, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.layer = layer
        self._norm: Norm = norm
        self._dropout = dropout
        self.hold(architecture, layer)

    def hold(self, architecture: Architecture, layer: Layer) -> None:
        """Own what the kinds of sub-layers of a layer need, too; run are only those of the block's own layer.

        Args:
            layer: of `architecture`, in the same place. Kinds that are held already stay as they are.
        """
        new = [sublayer for sublayer in layer.sublayers if not hasattr(self, sublayer.module_name)]
        for sublayer in new:
            self.add_module(sublayer.module_name, _module(sublayer, layer, architecture))
        for sublayer in new:
            residual = Residual(layer.width, self._norm, self._dropout)
            self.add_module(f"{sublayer.module_name}_residual", residual)

    def parts(self) -> Iterator[tuple[SubLayer, SubLayerModule, Residual]]:
        """Every sub-layer with its module and its residual connection, in the order a token passes them."""
        for sublayer in self.layer.sublayers:
            name = sublayer.module_name
            yield (
                sublayer,
                cast(SubLayerModule, getattr(self, name)),
                cast(Residual, getattr(self, f"{name}_residual")),
            )

    def forward(self, x_BXD: Tensor, context: Context) -> tuple[Tensor, Routing | None]:
        """The layer's output, (B, X, D), and its routing if it has a mixture."""
        routing: Routing | None = None
        for _, module, residual in self.parts():
            update_BXD, routed = module(residual.before(x_BXD), context)
            x_BXD = residual.after(x_BXD, update_BXD)
            routing = routed if routing is None else routing
        return x_BXD, routing

    def step(self, x_BKD: Tensor, position: int, kept: dict[str, Tensor]) -> Tensor:
        """One position of every beam; advances what the sub-layers keep."""
        for _, module, residual in self.parts():
            x_BKD = residual.after(x_BKD, module.step(residual.before(x_BKD), position, kept))
        return x_BKD


def _module(sublayer: SubLayer, layer: Layer, a: Architecture) -> SubLayerModule:
    match sublayer:
        case SelfAttention():
            return SelfAttentionModule(layer.width, a.qkv_dim, sublayer)
        case AverageAttention():
            return AverageAttentionModule(layer.width, sublayer.decoder_state(layer.width, a.qkv_dim))
        case Ssru():
            return SsruModule(layer.width, sublayer.decoder_state(layer.width, a.qkv_dim))
        case CrossAttention():
            return CrossAttentionModule(layer.width, a.encoder_width, a.qkv_dim, sublayer)
        case FeedForward():
            return FeedForwardModule(layer.width, layer.name, sublayer)
        case _:
            assert_never(sublayer)
