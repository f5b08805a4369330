"""Which expert each token used, layer by layer: of single sentences, and summed up over a test set.

Both read it off a teacher-forced pass: encoder layers see the source, decoder layers the known translation.

Shapes: B sentences, S source and T target tokens, N tokens that are not padding, E experts of a layer,
K experts a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from automoe.data.corpus import Pair
from automoe.data.text_parts import MAX_SOURCE_TOKENS
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import Layer
from automoe.inference.translator import batches_by_length, pad_right
from automoe.model.experts import Routing
from automoe.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class LayerRouting:
    """One layer and one sentence.

    Attributes:
        layer: e.g. `encoder.0`.
        ffn_sizes: of its experts; a dense layer has one, size 0 is an identity expert.
        chosen: for each token the indices of the experts it used, most probable first.
    """

    layer: str
    ffn_sizes: tuple[int, ...]
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


@dataclass(frozen=True, slots=True)
class ExpertUse:
    """One mixture layer on a test set.

    Attributes:
        layer: e.g. `encoder.0`.
        shares: the share of routed tokens each expert got, in the architecture's order; they sum to 1.
    """

    layer: str
    shares: tuple[float, ...]


def route_sentences(
    model: Transformer, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[SentenceRouting]:
    """The routing of sentences and their known translations, run as one batch.

    Args:
        model: in evaluation mode.
        sources: token ids that end with EOS. `targets`: without BOS and EOS, one a source.
    """
    routing = {layer.layer: layer for layer in _teacher_forced(model, sources, targets)}
    a = model.architecture
    encoder = _split(a.layers("encoder"), routing, [len(source) for source in sources])
    decoder = _split(a.layers("decoder"), routing, [len(target) + 1 for target in targets])
    return [
        SentenceRouting(tuple(source), (*target, EOS_ID), encoder[index], decoder[index])
        for index, (source, target) in enumerate(zip(sources, targets, strict=True))
    ]


def expert_use(
    model: Transformer, tokenizer: Tokenizer, pairs: Sequence[Pair], batch_tokens: int = 2000
) -> tuple[ExpertUse, ...]:
    """The share of tokens each expert of each mixture layer gets on these pairs, encoder first.

    With top-k routing a token counts once for each expert it is sent to; padding never counts.

    Args:
        model: put into evaluation mode.
        batch_tokens: source or target tokens a batch, whichever are more, padding counted.

    Of a side that is too long to be translated at once the beginning counts.
    """
    model.eval()
    most = MAX_SOURCE_TOKENS - 1
    sources = [[*tokens[:most], EOS_ID] for tokens in tokenizer.encode([pair.source for pair in pairs])]
    targets = [tokens[:most] for tokens in tokenizer.encode([pair.target for pair in pairs])]
    lengths = [max(len(source), len(target) + 1) for source, target in zip(sources, targets, strict=True)]
    count_E: dict[str, Tensor] = {}
    for indices in batches_by_length(lengths, batch_tokens):
        batch = [[rows[index] for index in indices] for rows in (sources, targets)]
        for routing in _teacher_forced(model, *batch):
            count_E[routing.layer] = count_E.get(routing.layer, 0) + routing.tokens_per_expert_E
    return tuple(ExpertUse(layer, tuple((n_E / n_E.sum()).tolist())) for layer, n_E in count_E.items())


def mean_ffn_sizes(layers: Sequence[LayerRouting]) -> tuple[float, ...]:
    """For each token the mean over the layers of the FFN size it used (the sum of its k experts')."""
    sizes = [
        [sum(layer.ffn_sizes[expert] for expert in chosen) for chosen in layer.chosen] for layer in layers
    ]
    return tuple(sum(token) / len(layers) for token in zip(*sizes, strict=True))


def _teacher_forced(
    model: Transformer, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> tuple[Routing, ...]:
    """The routing of every mixture layer on one batch; arguments as of `route_sentences`."""
    device = model.embedding.device
    source_BS = pad_right(sources).to(device)
    target_in_BT = pad_right([[BOS_ID, *target] for target in targets]).to(device)
    with torch.inference_mode():
        routing: tuple[Routing, ...] = model(source_BS, target_in_BT).routing
    return routing


def _split(
    layers: Iterable[Layer], routing: Mapping[str, Routing], lengths: Sequence[int]
) -> list[tuple[LayerRouting, ...]]:
    """For each sentence its share of every layer: a layer's N rows are the sentences one after another."""
    bounds = list(pairwise(accumulate(lengths, initial=0)))
    columns = []
    for layer in layers:
        if layer.name in routing:
            rows = [tuple(row) for row in routing[layer.name].experts_NK.tolist()]
        else:
            rows = [(0,)] * sum(lengths)  # a dense layer: one expert, no router
        sizes = layer.feed_forward.ffn_sizes
        columns.append([LayerRouting(layer.name, sizes, tuple(rows[i:j])) for i, j in bounds])
    return list(zip(*columns, strict=True))
