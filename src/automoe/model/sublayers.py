"""What a sub-layer is as a module; and attention and feed-forward sub-layers (`mixers` has the others).

Shapes: B sentences, S source tokens, X positions (source or target) or the rows of a flattened batch,
K beams, D width, H heads, E head size, L positions at most, M attended source positions, N tokens that are
not padding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automoe.design.architecture import CrossAttention, FeedForward, SelfAttention, StateTensor
from automoe.model.attention import Attention
from automoe.model.experts import MixtureOfExperts, Routing


@dataclass(frozen=True)
class Encoded:
    """An encoded batch: the last layers' outputs that the decoder attends to, and the mask.

    Attributes:
        outputs: (B, S, D) each, the encoder's last layers in order; as many as any decoder layer attends to.
        valid_BS: True at tokens, False at padding.
        routing: one entry per mixture layer.
    """

    outputs: tuple[Tensor, ...]
    valid_BS: Tensor
    routing: tuple[Routing, ...]

    def memory(self, layers: int) -> tuple[Tensor, Tensor]:
        """The last `layers` outputs concatenated along the length, (B, M, D), and their mask (B, 1, 1, M)."""
        memory_BMD = torch.cat(self.outputs[-layers:], dim=1)
        return memory_BMD, self.valid_BS.repeat(1, layers)[:, None, None, :]


@dataclass(frozen=True)
class Context:
    """What sub-layers need to know of a batch beside their input.

    Attributes:
        causal: a position sees those before it only (the decoder).
        visible: True where self-attention may look, broadcastable to (B, H, X, X); None is everywhere.
        valid_N: indices of the real tokens in the flattened batch; None when there is no padding.
        encoded: what cross-attention reads. `source_padded`: whether it has padding.
    """

    causal: bool
    visible: Tensor | None
    valid_N: Tensor | None
    encoded: Encoded | None = None
    source_padded: bool = False


class SubLayerModule(nn.Module, ABC):
    """A sub-layer: how it computes whole sequences, and one position at a time.

    A decoder's sub-layer says what it keeps from step to step (`state`), so that whoever stores and reorders
    it (`DecoderState`, an engine) need not know the kind. Stepping must equal `forward` position by position.

    Attributes:
        state: the tensors it keeps; nothing by default.
    """

    state: tuple[StateTensor, ...] = ()

    @abstractmethod
    def forward(self, x_BXD: Tensor, context: Context) -> tuple[Tensor, Routing | None]:
        """The update of every position, (B, X, D), and how a mixture routed its tokens."""

    def read_source(self, encoded: Encoded) -> dict[str, Tensor]:
        """Its tensors per `source`, and whatever else a step needs of the source, by name; (B, ...) each."""
        return {}

    @abstractmethod
    def step(self, x_BKD: Tensor, position: int, kept: dict[str, Tensor]) -> Tensor:
        """The update of one position of every beam, (B, K, D).

        Args:
            kept: the tensors of its layer by name: `position` ones (B, K, H, L, E), of which `position`
                entries are filled and the next is written here; `beam` ones (B, K, H, E), zeros at first,
                replaced here; those of `read_source`.
        """


class SelfAttentionModule(SubLayerModule, Attention):
    """Self-attention, causal in a decoder."""

    def __init__(self, width: int, qkv_dim: int, sublayer: SelfAttention) -> None:
        Attention.__init__(self, width, width, qkv_dim, sublayer.heads)
        self.state = sublayer.decoder_state(width, qkv_dim)

    def forward(self, x_BXD: Tensor, context: Context) -> tuple[Tensor, None]:
        """As `SubLayerModule.forward`."""
        # Padding is on the right, so a causal mask alone hides it from every real token.
        return self.over(x_BXD, x_BXD, context.visible, context.causal), None

    def step(self, x_BKD: Tensor, position: int, kept: dict[str, Tensor]) -> Tensor:
        """As `SubLayerModule.step`."""
        beams = x_BKD.shape[:2]
        y_X1D = x_BKD.flatten(0, 1)[:, None]
        caches = kept["self_keys"], kept["self_values"]
        for cache, new_XH1E in zip(caches, self.keys_values(y_X1D), strict=True):
            cache[:, :, :, position] = new_XH1E[:, :, 0].unflatten(0, beams)
        keys, values = (cache[:, :, :, : position + 1].flatten(0, 1) for cache in caches)
        return self.attend(y_X1D, keys, values).view_as(x_BKD)


class CrossAttentionModule(SubLayerModule, Attention):
    """Attention of the decoder over the encoder's last layers."""

    def __init__(self, width: int, memory_width: int, qkv_dim: int, sublayer: CrossAttention) -> None:
        Attention.__init__(self, width, memory_width, qkv_dim, sublayer.heads)
        self.encoder_layers_attended = sublayer.encoder_layers_attended
        self.state = sublayer.decoder_state(width, qkv_dim)

    def forward(self, x_BXD: Tensor, context: Context) -> tuple[Tensor, None]:
        """As `SubLayerModule.forward`."""
        assert context.encoded is not None
        memory_BMD, mask = context.encoded.memory(self.encoder_layers_attended)
        return self.over(x_BXD, memory_BMD, mask if context.source_padded else None), None

    def read_source(self, encoded: Encoded) -> dict[str, Tensor]:
        """Keys and values (B, H, M, E), and the mask."""
        memory_BMD, mask = encoded.memory(self.encoder_layers_attended)
        keys, values = self.keys_values(memory_BMD)
        return {"cross_keys": keys, "cross_values": values, "cross_visible": mask}

    def step(self, x_BKD: Tensor, position: int, kept: dict[str, Tensor]) -> Tensor:
        """As `SubLayerModule.step`."""
        # The beams of a sentence are the queries of one attention over its one memory.
        return self.attend(x_BKD, kept["cross_keys"], kept["cross_values"], kept["cross_visible"])


class FeedForwardModule(SubLayerModule):
    """An FFN or a mixture of experts; tokens that are padding are neither routed nor computed."""

    def __init__(self, width: int, name: str, sublayer: FeedForward) -> None:
        super().__init__()
        self.mixture = MixtureOfExperts(width, sublayer.experts, sublayer.top_k, name)

    def forward(self, x_BXD: Tensor, context: Context) -> tuple[Tensor, Routing | None]:
        """As `SubLayerModule.forward`."""
        return self._mix(x_BXD, context.valid_N)

    def step(self, x_BKD: Tensor, position: int, kept: dict[str, Tensor]) -> Tensor:
        """As `SubLayerModule.step`."""
        return self._mix(x_BKD, None)[0]

    def _mix(self, x_BXD: Tensor, valid_N: Tensor | None) -> tuple[Tensor, Routing | None]:
        flat_XD = x_BXD.flatten(0, 1)
        if valid_N is None:
            out_XD, routing = self.mixture(flat_XD)
        else:
            out_ND, routing = self.mixture(flat_XD[valid_N])
            out_XD = torch.zeros_like(flat_XD).index_copy(0, valid_N, out_ND.to(flat_XD.dtype))
        return out_XD.view_as(x_BXD), routing
