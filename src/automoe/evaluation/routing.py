"""Which expert each token of a translated sentence used, layer by layer.

Shapes: B sentences, S source and T target tokens, N tokens that are not padding, K experts a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import DecoderLayer, EncoderLayer
from automoe.inference.translator import pad_right
from automoe.model.experts import Routing
from automoe.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class LayerRouting:
    """One layer and one sentence.

    Attributes:
        layer: e.g. `encoder.0`.
        experts: the FFN size of each expert; a dense layer has one, size 0 is an identity expert.
        chosen: for each token the indices of the experts it used, most probable first.
    """

    layer: str
    experts: tuple[int, ...]
    chosen: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class SentenceRouting:
    """One sentence and its translation.

    Attributes:
        source: token ids the encoder read, end-of-sentence last.
        target: token ids the decoder wrote, end-of-sentence last. Position t of the decoder's layers
            is the computation that predicted `target[t]`; its input was the token before it.
        encoder, decoder: every layer in order, dense ones too.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    encoder: tuple[LayerRouting, ...]
    decoder: tuple[LayerRouting, ...]


def route_sentences(
    model: Transformer, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[SentenceRouting]:
    """Run the model over sentences and their known translations (teacher forcing) as one batch.

    Args:
        model: in evaluation mode.
        sources: token ids that end with EOS. `targets`: without BOS and EOS, one a source.
    """
    device = model.embedding.device
    source_BS = pad_right(sources).to(device)
    target_in_BT = pad_right([[BOS_ID, *target] for target in targets]).to(device)
    with torch.inference_mode():
        routing = {layer.layer: layer for layer in model(source_BS, target_in_BT).routing}
    a = model.architecture
    source_lengths = [len(source) for source in sources]
    target_lengths = [len(target) + 1 for target in targets]
    encoder = _split("encoder", a.encoder, routing, source_lengths)
    decoder = _split("decoder", a.decoder, routing, target_lengths)
    return [
        SentenceRouting(tuple(source), (*target, EOS_ID), encoder[index], decoder[index])
        for index, (source, target) in enumerate(zip(sources, targets, strict=True))
    ]


def mean_ffn_sizes(layers: Sequence[LayerRouting]) -> tuple[float, ...]:
    """For each token the mean over the layers of the FFN size it used (the sum of its k experts')."""
    sizes = [[sum(layer.experts[expert] for expert in chosen) for chosen in layer.chosen] for layer in layers]
    return tuple(sum(token) / len(layers) for token in zip(*sizes, strict=True))


def _split(
    stack: str,
    layers: Sequence[EncoderLayer | DecoderLayer],
    routing: dict[str, Routing],
    lengths: Sequence[int],
) -> list[tuple[LayerRouting, ...]]:
    """For each sentence its share of every layer: a layer's N rows are the sentences one after another."""
    bounds = list(pairwise(accumulate(lengths, initial=0)))
    columns = []
    for index, layer in enumerate(layers):
        name = f"{stack}.{index}"
        if name in routing:
            rows = [tuple(row) for row in routing[name].experts_NK.tolist()]
        else:
            rows = [(0,)] * sum(lengths)  # a dense layer: one expert, no router
        columns.append([LayerRouting(name, layer.experts, tuple(rows[i:j])) for i, j in bounds])
    return list(zip(*columns, strict=True))
