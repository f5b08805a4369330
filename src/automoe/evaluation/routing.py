"""Which expert each token of a sentence and of its known translation used, layer by layer.

It is read off one pass over both: encoder layers see the source, decoder layers the translation.

Shapes: B sentences, S source and T target tokens, N tokens that are not padding, K experts a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import Architecture, Layer
from automoe.inference.engine import Ids
from automoe.inference.translator import pad_right


class Router(Protocol):
    """A model that tells which experts it would use."""

    @property
    def architecture(self) -> Architecture:
        """Of the model."""

    def __call__(self, source_BS: Ids, target_in_BT: Ids) -> Mapping[str, Ids]:
        """Of each mixture layer, by name, the experts of every token that is no padding, (N, K).

        Args:
            source_BS: padded on the right. `target_in_BT`: likewise; each row begins with BOS.
        """


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


def route_sentences(
    router: Router, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[SentenceRouting]:
    """The routing of sentences and their known translations, run as one batch.

    Args:
        sources: token ids that end with EOS. `targets`: without BOS and EOS, one a source.
    """
    routing = router(pad_right(sources), pad_right([[BOS_ID, *target] for target in targets]))
    a = router.architecture
    encoder = _split(a.layers("encoder"), routing, [len(source) for source in sources])
    decoder = _split(a.layers("decoder"), routing, [len(target) + 1 for target in targets])
    return [
        SentenceRouting(tuple(source), (*target, EOS_ID), encoder[index], decoder[index])
        for index, (source, target) in enumerate(zip(sources, targets, strict=True))
    ]


def mean_ffn_sizes(layers: Sequence[LayerRouting]) -> tuple[float, ...]:
    """For each token the mean over the layers of the FFN size it used (the sum of its k experts')."""
    sizes = [
        [sum(layer.ffn_sizes[expert] for expert in chosen) for chosen in layer.chosen] for layer in layers
    ]
    return tuple(sum(token) / len(layers) for token in zip(*sizes, strict=True))


def _split(
    layers: Iterable[Layer], routing: Mapping[str, Ids], lengths: Sequence[int]
) -> list[tuple[LayerRouting, ...]]:
    """For each sentence its share of every layer: a layer's N rows are the sentences one after another."""
    bounds = list(pairwise(accumulate(lengths, initial=0)))
    columns = []
    for layer in layers:
        if layer.name in routing:
            rows = [tuple(row) for row in routing[layer.name].tolist()]
        else:
            rows = [(0,)] * sum(lengths)  # a dense layer: one expert, no router
        sizes = layer.feed_forward.ffn_sizes
        columns.append([LayerRouting(layer.name, sizes, tuple(rows[i:j])) for i, j in bounds])
    return list(zip(*columns, strict=True))
