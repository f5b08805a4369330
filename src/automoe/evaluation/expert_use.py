"""How much each expert of a model is used on a test set, by the reference model.

Shapes: B sentences, S source and T target tokens, E experts of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from automoe.data.corpus import Pair
from automoe.data.text_parts import MAX_SOURCE_TOKENS
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import Architecture
from automoe.errors import InputError
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
        importances: likewise the share of all gates: the sum of the gates by which an expert's outputs were
            scaled, over that of all experts. It is what an expert got times how sure the router was of it
            (activity times confidence, as in the expert pruning of Koishekenov et al., 2023); 0 only for an
            expert without tokens.
    """

    layer: str
    shares: tuple[float, ...]
    importances: tuple[float, ...]

    @property
    def unused(self) -> tuple[int, ...]:
        """The experts that got no token."""
        return tuple(expert for expert, share in enumerate(self.shares) if not share)


def hardly_used(
    architecture: Architecture, use: Sequence[ExpertUse], min_importance: float
) -> dict[str, tuple[int, ...]]:
    """Of each layer that has some, the experts with weights that got no token, or are of less importance.

    Args:
        use: of the architecture's mixture layers. `min_importance`: 0 to 1; 0 finds those without tokens.

    Raises:
        InputError: in some layer that would be every expert that got a token.
    """
    sizes = {layer.name: layer.feed_forward.ffn_sizes for layer in architecture.layers()}
    largest = {one.layer: max(one.importances) for one in use}
    problems = [
        f"{layer}: the most important expert has {importance:.1%}"
        for layer, importance in largest.items()
        if importance < min_importance
    ]
    if problems:
        mend = f"choose a --min-importance of at most {math.floor(1000 * min(largest.values())) / 10}%"
        asked = f"a --min-importance of {100 * min_importance:.3g}%"
        raise InputError(f"{asked} would remove every expert of a layer", [*problems, mend])
    found = {
        one.layer: tuple(
            expert
            for expert, (share, importance) in enumerate(zip(one.shares, one.importances, strict=True))
            if sizes[one.layer][expert] and (not share or importance < min_importance)
        )
        for one in use
    }
    return {layer: experts for layer, experts in found.items() if experts}


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
    """How much of tokens and gates each expert of each mixture layer gets on these pairs, encoder first.

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
    gates_E: dict[str, Tensor] = {}
    for indices in batches_by_length(lengths, batch_tokens):
        source_BS = pad_right([sources[index] for index in indices])
        target_in_BT = pad_right([[BOS_ID, *targets[index]] for index in indices])
        for routing in _routing(model, source_BS, target_in_BT):
            layer, sent_E = routing.layer, routing.tokens_per_expert_E
            count_E[layer] = count_E.get(layer, 0) + sent_E
            sums_E = torch.zeros_like(sent_E, dtype=torch.float64)
            sums_E.index_add_(0, routing.experts_NK.flatten(), routing.gates_NK.flatten().double())
            gates_E[layer] = gates_E.get(layer, 0) + sums_E
    return tuple(ExpertUse(layer, _shares(count_E[layer]), _shares(gates_E[layer])) for layer in count_E)


def _shares(sums_E: Tensor) -> tuple[float, ...]:
    return tuple((sums_E / sums_E.sum()).tolist())


def _routing(model: Transformer, source_BS: Ids, target_in_BT: Ids) -> tuple[Routing, ...]:
    device = model.embedding.device
    sides = (torch.from_numpy(side).to(device) for side in (source_BS, target_in_BT))
    with torch.inference_mode():
        routing: tuple[Routing, ...] = model(*sides).routing
    return routing
