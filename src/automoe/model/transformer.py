"""The one model class: an encoder-decoder Transformer built from an `Architecture`.

Shapes: B sentences, S source and T target tokens, K beams, D width, V vocabulary, N tokens that are not
padding, X any dimensions before the last.

The embedding is one matrix (V, max of the two widths) shared by source, target and output layer: the
encoder reads its leading `encoder_width` columns, the decoder and the output its leading `decoder_width`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automoe.data.vocabulary import PAD_ID
from automoe.design.architecture import Architecture, StateTensor
from automoe.design.model_options import ModelOptions
from automoe.model.attention import sinusoidal_positions
from automoe.model.block import Block
from automoe.model.embedding import lookup
from automoe.model.experts import Routing
from automoe.model.sublayers import Context, Encoded


@dataclass(frozen=True)
class ModelOutput:
    """Attributes: hidden_BTD, the input of the output layer; routing, one entry per mixture layer."""

    hidden_BTD: Tensor
    routing: tuple[Routing, ...]


class DecoderState:
    """What the decoder's sub-layers keep of one batch between steps; `Transformer.step` advances it.

    Args:
        kept: for each layer, its tensors by name (`SubLayerModule.step` says their shapes).
        declared: for each layer, what its sub-layers say of the tensors they keep.
    """

    def __init__(self, kept: list[dict[str, Tensor]], declared: list[tuple[StateTensor, ...]]) -> None:
        self.length = 0
        self.kept = kept
        self._declared = declared

    def reorder(self, beams_BK: Tensor) -> None:
        """Row k of sentence b continues what row `beams_BK[b, k]` of it had kept."""
        rows_B1 = torch.arange(beams_BK.shape[0], device=beams_BK.device)[:, None]
        for tensors, declared in zip(self.kept, self._declared, strict=True):
            for state in declared:
                match state.per:
                    case "position":
                        used = tensors[state.name][:, :, :, : self.length]
                        used.copy_(used[rows_B1, beams_BK])
                    case "beam":
                        tensors[state.name] = tensors[state.name][rows_B1, beams_BK]
                    case "source":
                        pass  # shared by the beams
                    case _:
                        assert_never(state.per)

    def keep(self, sentences_B: Tensor) -> None:
        """Only these sentences (indices) stay, in this order."""
        for tensors in self.kept:
            for name, value in tensors.items():
                tensors[name] = value[sentences_B]


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
            Block(a, layer, options.norm, options.encoder_dropout) for layer in a.layers("encoder")
        )
        self.decoder = nn.ModuleList(
            Block(a, layer, options.norm, options.decoder_dropout) for layer in a.layers("decoder")
        )
        pre = options.norm == "pre"
        self.encoder_norm = nn.LayerNorm(a.encoder_width) if pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(a.decoder_width) if pre else nn.Identity()

    def hold(self, architecture: Architecture) -> None:
        """Own the weights of kinds of sub-layers that another architecture of the same shape has, too.

        They are not run, but a sub-network may have them (`sharing`).
        """
        for block, layer in zip(self._decoder_blocks, architecture.layers("decoder"), strict=True):
            block.hold(architecture, layer)

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
        visible = None if valid_N is None else valid_BS[:, None, None, :]
        context = Context(causal=False, visible=visible, valid_N=valid_N)
        x_BSD = self._embed(source_BS, 0, self.architecture.encoder_width, self.options.encoder_dropout)
        first_attended = len(self.encoder) - self.architecture.encoder_outputs_attended
        outputs: list[Tensor] = []
        routing: list[Routing] = []
        for index, block in enumerate(self.encoder):
            x_BSD, layer_routing = block(x_BSD, context)
            if index >= first_attended:
                outputs.append(self.encoder_norm(x_BSD))
            if layer_routing is not None:
                routing.append(layer_routing)
        return Encoded(tuple(outputs), valid_BS, tuple(routing))

    def forward(self, source_BS: Tensor, target_in_BT: Tensor) -> ModelOutput:
        """Teacher forcing: the hidden states (B, T, D) that predict each next target token.

        The output layer is apart (`logits`), so that a loss can do it in chunks.
        """
        encoded = self.encode(source_BS)
        context = Context(
            causal=True,
            visible=None,
            valid_N=_valid_rows(target_in_BT != PAD_ID),
            encoded=encoded,
            source_padded=not bool(encoded.valid_BS.all()),
        )
        x_BTD = self._embed(target_in_BT, 0, self.architecture.decoder_width, self.options.decoder_dropout)
        routing = list(encoded.routing)
        for block in self.decoder:
            x_BTD, layer_routing = block(x_BTD, context)
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
        """What the decoder keeps before the first of at most `max_length` positions.

        Args:
            beam_size: rows a sentence.
        """
        batch, like = encoded.valid_BS.shape[0], encoded.outputs[0]
        kept: list[dict[str, Tensor]] = []
        declared: list[tuple[StateTensor, ...]] = []
        for block in self._decoder_blocks:
            modules = [module for _, module, _ in block.parts()]
            declared.append(tuple(state for module in modules for state in module.state))
            kept.append({})
            for state in declared[-1]:
                if state.per == "position":
                    shape = (batch, beam_size, state.heads, max_length, state.size)
                    kept[-1][state.name] = like.new_empty(shape)
                elif state.per == "beam":
                    kept[-1][state.name] = like.new_zeros(batch, beam_size, state.heads, state.size)
            for module in modules:
                kept[-1] |= module.read_source(encoded)
        return DecoderState(kept, declared)

    def step(self, tokens_BK: Tensor, state: DecoderState) -> Tensor:
        """Decode one position: the hidden states (B, K, D) behind `tokens_BK`; advances the state.

        As in `forward`, the output layer is apart (`logits`).
        """
        x_BKD = self._embed(
            tokens_BK.flatten()[:, None], state.length, self.architecture.decoder_width, 0.0
        ).view(*tokens_BK.shape, -1)
        for block, kept in zip(self._decoder_blocks, state.kept, strict=True):
            x_BKD = block.step(x_BKD, state.length, kept)
        state.length += 1
        hidden_BKD: Tensor = self.decoder_norm(x_BKD)
        return hidden_BKD

    @property
    def _decoder_blocks(self) -> Iterable[Block]:
        return cast(Iterable[Block], self.decoder)

    def _embed(self, tokens_BS: Tensor, start: int, width: int, dropout: float) -> Tensor:
        x_BSD = lookup(self.embedding, tokens_BS, width) * width**0.5
        x_BSD = x_BSD + sinusoidal_positions(start, tokens_BS.shape[1], width, x_BSD)
        return F.dropout(x_BSD, dropout, self.training)


def _valid_rows(valid_BS: Tensor) -> Tensor | None:
    """The indices of the real tokens in the flattened batch, or None when there is no padding."""
    return None if bool(valid_BS.all()) else valid_BS.flatten().nonzero().flatten()
