"""How much each expert of a model is used on a test set, by the reference model.

Shapes: B sentences, S source and T target tokens, E experts of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from automoe.data.corpus import Pair
from automoe.data.text_parts import MAX_SOURCE_TOKENS
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.inference.engine import Ids
from automoe.inference.translator import batches_by_length, pad_right
from automoe.model.experts import Routing
from automoe.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class ExpertUse:
    """One mixture layer on a test set.

    Attributes:
        layer: e.g. `encoder.0`.
        shares: the share of routed tokens each expert got, in the architecture's order; they sum to 1.
    """

    layer: str
    shares: tuple[float, ...]


class ModelRouter:
    """A `Router` that is the reference model.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: Transformer) -> None:
        self.architecture = model.architecture
        self._model = model

    def __call__(self, source_BS: Ids, target_in_BT: Ids) -> dict[str, Ids]:
        """As `Router`."""
        routed = _routing(self._model, source_BS, target_in_BT)
        return {routing.layer: routing.experts_NK.cpu().numpy() for routing in routed}


def expert_use(
    model: Transformer, tokenizer: Tokenizer, pairs: Sequence[Pair], batch_tokens: int = 2000
) -> tuple[ExpertUse, ...]:
    """The share of tokens each expert of each mixture layer gets on these pairs, encoder first.

    With top-k routing a token counts once for each expert it is sent to; padding never counts. Of a side
    that is too long to be translated at once (`MAX_SOURCE_TOKENS`) only the beginning counts.

    Args:
        model: put into evaluation mode.
        batch_tokens: source or target tokens a batch, whichever are more, padding counted.
    """
    model.eval()
    most = MAX_SOURCE_TOKENS - 1
    sources = [[*tokens[:most], EOS_ID] for tokens in tokenizer.encode([pair.source for pair in pairs])]
    targets = [tokens[:most] for tokens in tokenizer.encode([pair.target for pair in pairs])]
    lengths = [max(len(source), len(target) + 1) for source, target in zip(sources, targets, strict=True)]
    count_E: dict[str, Tensor] = {}
    for indices in batches_by_length(lengths, batch_tokens):
        source_BS = pad_right([sources[index] for index in indices])
        target_in_BT = pad_right([[BOS_ID, *targets[index]] for index in indices])
        for routing in _routing(model, source_BS, target_in_BT):
            count_E[routing.layer] = count_E.get(routing.layer, 0) + routing.tokens_per_expert_E
    return tuple(ExpertUse(layer, tuple((n_E / n_E.sum()).tolist())) for layer, n_E in count_E.items())


def _routing(model: Transformer, source_BS: Ids, target_in_BT: Ids) -> tuple[Routing, ...]:
    device = model.embedding.device
    sides = (torch.from_numpy(side).to(device) for side in (source_BS, target_in_BT))
    with torch.inference_mode():
        routing: tuple[Routing, ...] = model(*sides).routing
    return routing
