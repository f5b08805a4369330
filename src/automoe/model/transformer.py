"""The one model class: an encoder-decoder Transformer built from an `Architecture`.

Shapes: B sentences, S source and T target tokens, K beams, D width, V vocabulary, H heads, E head size,
M attended source positions, N tokens that are not padding.

The embedding is one matrix (V, max of the two widths) shared by source, target and output layer: the
encoder reads its leading `encoder_width` columns, the decoder and the output its leading `decoder_width`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automoe.data.vocabulary import PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.model.attention import Attention, sinusoidal_positions
from automoe.model.embedding import lookup
from automoe.model.experts import MixtureOfExperts, Routing


@dataclass(frozen=True)
class ModelOptions:
    """What is not searched.

    Args:
        norm: layer norm after each residual sum (`post`, the paper's) or before each sub-layer (`pre`,
            with a final norm per stack).
        encoder_dropout, decoder_dropout: on embeddings and on each sub-layer's output.
    """

    norm: Literal["pre", "post"] = "post"
    encoder_dropout: float = 0.0
    decoder_dropout: float = 0.0


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
class ModelOutput:
    """Attributes: hidden_BTD, the input of the output layer; routing, one entry per mixture layer."""

    hidden_BTD: Tensor
    routing: tuple[Routing, ...]


class DecoderState:
    """The key-value cache of one batch during incremental decoding; `Transformer.step` advances it.

    Self-attention caches are static buffers per beam; cross-attention keys and values exist once per
    sentence, all its beams query them together.
    """

    def __init__(
        self, self_caches: list[tuple[Tensor, Tensor]], cross: list[tuple[Tensor, Tensor, Tensor]]
    ) -> None:
        self.length = 0
        self.self_caches = self_caches  # a layer: keys, values (B, K, H, L, E)
        self.cross = cross  # a layer: keys, values (B, H, M, E), mask (B, 1, 1, M)

    def reorder(self, beams_BK: Tensor) -> None:
        """Row k of sentence b continues what row `beams_BK[b, k]` of it had cached."""
        rows_B1 = torch.arange(beams_BK.shape[0], device=beams_BK.device)[:, None]
        for keys, values in self.self_caches:
            for cache in (keys, values):
                used = cache[:, :, :, : self.length]
                used.copy_(used[rows_B1, beams_BK])

    def keep(self, sentences_B: Tensor) -> None:
        """Only these sentences (indices) stay, in this order."""
        self.self_caches = [(k[sentences_B], v[sentences_B]) for k, v in self.self_caches]
        self.cross = [(k[sentences_B], v[sentences_B], m[sentences_B]) for k, v, m in self.cross]


class Residual(nn.Module):
    """`norm(x + f(x))` or `x + f(norm(x))`, with dropout on f's output."""

    def __init__(self, width: int, norm: Literal["pre", "post"], dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pre = norm == "pre"
        self.dropout = dropout

    def before(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.pre else x

    def after(self, x: Tensor, update: Tensor) -> Tensor:
        x = x + F.dropout(update, self.dropout, self.training)
        return x if self.pre else self.norm(x)


class FeedForward(nn.Module):
    """The last sub-layer of every layer; tokens that are padding are neither routed nor computed."""

    def __init__(self, width: int, layer: EncoderLayer | DecoderLayer, name: str) -> None:
        super().__init__()
        self.mixture = MixtureOfExperts(width, layer.experts, layer.top_k, name)

    def forward(self, x_BSD: Tensor, valid_N: Tensor | None) -> tuple[Tensor, Routing | None]:
        flat_XD = x_BSD.flatten(0, 1)
        if valid_N is None:
            out_XD, routing = self.mixture(flat_XD)
        else:
            out_ND, routing = self.mixture(flat_XD[valid_N])
            out_XD = torch.zeros_like(flat_XD).index_copy(0, valid_N, out_ND.to(flat_XD.dtype))
        return out_XD.view_as(x_BSD), routing


class EncoderBlock(nn.Module):
    """Self-attention, then an FFN or a mixture of experts."""

    def __init__(self, a: Architecture, layer: EncoderLayer, name: str, options: ModelOptions) -> None:
        super().__init__()
        width = a.encoder_width
        self.attention = Attention(width, width, a.qkv_dim, layer.self_attention_heads)
        self.ffn = FeedForward(width, layer, name)
        self.attention_residual = Residual(width, options.norm, options.encoder_dropout)
        self.ffn_residual = Residual(width, options.norm, options.encoder_dropout)

    def forward(
        self, x_BSD: Tensor, mask: Tensor | None, valid_N: Tensor | None
    ) -> tuple[Tensor, Routing | None]:
        y = self.attention_residual.before(x_BSD)
        x_BSD = self.attention_residual.after(x_BSD, self.attention(y, y, mask))
        update_BSD, routing = self.ffn(self.ffn_residual.before(x_BSD), valid_N)
        return self.ffn_residual.after(x_BSD, update_BSD), routing


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention, then an FFN or a mixture of experts."""

    def __init__(self, a: Architecture, layer: DecoderLayer, name: str, options: ModelOptions) -> None:
        super().__init__()
        width = a.decoder_width
        self.encoder_layers_attended = layer.encoder_layers_attended
        self.attention = Attention(width, width, a.qkv_dim, layer.self_attention_heads)
        self.cross = Attention(width, a.encoder_width, a.qkv_dim, layer.cross_attention_heads)
        self.ffn = FeedForward(width, layer, name)
        self.attention_residual = Residual(width, options.norm, options.decoder_dropout)
        self.cross_residual = Residual(width, options.norm, options.decoder_dropout)
        self.ffn_residual = Residual(width, options.norm, options.decoder_dropout)

    def forward(
        self, x_BTD: Tensor, encoded: Encoded, masked: bool, valid_N: Tensor | None
    ) -> tuple[Tensor, Routing | None]:
        y = self.attention_residual.before(x_BTD)
        # Padding is on the right, so the causal mask alone hides it from every real token.
        x_BTD = self.attention_residual.after(x_BTD, self.attention(y, y, causal=True))
        memory_BMD, mask = encoded.memory(self.encoder_layers_attended)
        y = self.cross_residual.before(x_BTD)
        x_BTD = self.cross_residual.after(x_BTD, self.cross(y, memory_BMD, mask if masked else None))
        return self._feed_forward(x_BTD, valid_N)

    def step(
        self,
        x_BKD: Tensor,
        position: int,
        cache: tuple[Tensor, Tensor],
        cross: tuple[Tensor, Tensor, Tensor],
    ) -> Tensor:
        """One position of every beam; writes its keys and values into the cache."""
        beams = x_BKD.shape[:2]
        y_XD = self.attention_residual.before(x_BKD).flatten(0, 1)[:, None]
        for buffer, new_XH1E in zip(cache, self.attention.keys_values(y_XD), strict=True):
            buffer[:, :, :, position] = new_XH1E[:, :, 0].unflatten(0, beams)
        keys, values = (buffer[:, :, :, : position + 1].flatten(0, 1) for buffer in cache)
        update_BKD = self.attention.attend(y_XD, keys, values).view_as(x_BKD)
        x_BKD = self.attention_residual.after(x_BKD, update_BKD)
        # The beams of a sentence are the queries of one attention over its one memory.
        update_BKD = self.cross.attend(self.cross_residual.before(x_BKD), *cross)
        x_BKD = self.cross_residual.after(x_BKD, update_BKD)
        return self._feed_forward(x_BKD, None)[0]

    def _feed_forward(self, x_BTD: Tensor, valid_N: Tensor | None) -> tuple[Tensor, Routing | None]:
        update_BTD, routing = self.ffn(self.ffn_residual.before(x_BTD), valid_N)
        return self.ffn_residual.after(x_BTD, update_BTD), routing


class Transformer(nn.Module):
    """An encoder-decoder Transformer, dense or sparse, as its architecture says.

    Args:
        architecture: the design. `vocabulary_size`: V, special tokens included.
        options: norm position and dropout.
    """

    def __init__(
        self, architecture: Architecture, vocabulary_size: int, options: ModelOptions | None = None
    ) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.vocabulary_size = vocabulary_size
        self.options = options = options or ModelOptions()
        self.embedding = nn.Parameter(torch.empty(vocabulary_size, max(a.encoder_width, a.decoder_width)))
        self.encoder = nn.ModuleList(
            EncoderBlock(a, layer, f"encoder.{index}", options) for index, layer in enumerate(a.encoder)
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(a, layer, f"decoder.{index}", options) for index, layer in enumerate(a.decoder)
        )
        pre = options.norm == "pre"
        self.encoder_norm = nn.LayerNorm(a.encoder_width) if pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(a.decoder_width) if pre else nn.Identity()

    def initialise(self, seed: int) -> None:
        """Fresh weights: Xavier uniform for matrices, N(0, 1/width) for the embedding, no-op norms."""
        generator = torch.Generator(self.embedding.device).manual_seed(seed)
        nn.init.normal_(self.embedding, std=self.embedding.shape[1] ** -0.5, generator=generator)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    def encode(self, source_BS: Tensor) -> Encoded:
        """Encode token ids (B, S), padded on the right with PAD_ID.

        With pre-norm, every attended layer's output passes through the encoder's final norm.
        """
        valid_BS = source_BS != PAD_ID
        valid_N = _valid_rows(valid_BS)
        mask = None if valid_N is None else valid_BS[:, None, None, :]
        x_BSD = self._embed(source_BS, 0, self.architecture.encoder_width, self.options.encoder_dropout)
        attended = max(layer.encoder_layers_attended for layer in self.architecture.decoder)
        outputs: list[Tensor] = []
        routing: list[Routing] = []
        for index, block in enumerate(self.encoder):
            x_BSD, layer_routing = block(x_BSD, mask, valid_N)
            if index >= len(self.encoder) - attended:
                outputs.append(self.encoder_norm(x_BSD))
            if layer_routing is not None:
                routing.append(layer_routing)
        return Encoded(tuple(outputs), valid_BS, tuple(routing))

    def forward(self, source_BS: Tensor, target_in_BT: Tensor) -> ModelOutput:
        """Teacher forcing: the hidden states (B, T, D) that predict each next target token.

        The output layer is apart (`logits`), so that a loss can do it in chunks.
        """
        encoded = self.encode(source_BS)
        masked = not bool(encoded.valid_BS.all())
        valid_N = _valid_rows(target_in_BT != PAD_ID)
        x_BTD = self._embed(target_in_BT, 0, self.architecture.decoder_width, self.options.decoder_dropout)
        routing = list(encoded.routing)
        for block in self.decoder:
            x_BTD, layer_routing = block(x_BTD, encoded, masked, valid_N)
            if layer_routing is not None:
                routing.append(layer_routing)
        return ModelOutput(self.decoder_norm(x_BTD), tuple(routing))

    @property
    def output_weight_VD(self) -> Tensor:
        """The output layer's weight: the embedding's leading `decoder_width` columns."""
        return self.embedding[:, : self.architecture.decoder_width]

    def logits(self, hidden_XD: Tensor) -> Tensor:
        """Scores over the vocabulary, (..., V), of hidden states (..., D)."""
        return F.linear(hidden_XD, self.output_weight_VD)

    def start(self, encoded: Encoded, beam_size: int, max_length: int) -> DecoderState:
        """An empty cache for decoding at most `max_length` positions with `beam_size` rows a sentence."""
        batch = encoded.valid_BS.shape[0]
        caches, cross = [], []
        for block in self._decoder_blocks:
            attention = block.attention
            shape = (
                batch,
                beam_size,
                attention.heads,
                max_length,
                self.architecture.qkv_dim // attention.heads,
            )
            caches.append((encoded.outputs[0].new_empty(shape), encoded.outputs[0].new_empty(shape)))
            memory_BMD, mask = encoded.memory(block.encoder_layers_attended)
            cross.append((*block.cross.keys_values(memory_BMD), mask))
        return DecoderState(caches, cross)

    def step(self, tokens_BK: Tensor, state: DecoderState) -> Tensor:
        """Decode one position: the hidden states (B, K, D) behind `tokens_BK`; advances the state.

        As in `forward`, the output layer is apart (`logits`).
        """
        x_BKD = self._embed(
            tokens_BK.flatten()[:, None], state.length, self.architecture.decoder_width, 0.0
        ).view(*tokens_BK.shape, -1)
        for block, cache, cross in zip(self._decoder_blocks, state.self_caches, state.cross, strict=True):
            x_BKD = block.step(x_BKD, state.length, cache, cross)
        state.length += 1
        hidden_BKD: Tensor = self.decoder_norm(x_BKD)
        return hidden_BKD

    @property
    def _decoder_blocks(self) -> Iterable[DecoderBlock]:
        return cast(Iterable[DecoderBlock], self.decoder)

    def _embed(self, tokens_BS: Tensor, start: int, width: int, dropout: float) -> Tensor:
        x_BSD = lookup(self.embedding, tokens_BS, width) * width**0.5
        x_BSD = x_BSD + sinusoidal_positions(start, tokens_BS.shape[1], width, x_BSD)
        return F.dropout(x_BSD, dropout, self.training)


def _valid_rows(valid_BS: Tensor) -> Tensor | None:
    """The indices of the real tokens in the flattened batch, or None when there is no padding."""
    return None if bool(valid_BS.all()) else valid_BS.flatten().nonzero().flatten()
