"""What `expert_grid.js` draws: the tokens of a sentence and the experts they used, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from automoe.data.tokenizer import Tokenizer
from automoe.evaluation.routing import LayerRouting, SentenceRouting, mean_ffn_sizes


def grids_of(routing: SentenceRouting, tokenizer: Tokenizer) -> dict[str, Any]:
    """The grids of a sentence and its translation, `encoder` and `decoder`.

    Each has the `tokens` as the vocabulary spells them, the `layers` (`name`; `experts`, the FFN size of
    each; `chosen`, for each token the indices of those it used) and, for each token, in `mean_ffn_sizes`,
    the mean over the layers of the FFN size it used.
    """
    return {
        "encoder": _grid(tokenizer.pieces(routing.source), routing.encoder),
        "decoder": _grid(tokenizer.pieces(routing.target), routing.decoder),
    }


def _grid(tokens: Sequence[str], layers: Sequence[LayerRouting]) -> dict[str, Any]:
    return {
        "tokens": list(tokens),
        "layers": [
            {
                "name": layer.layer,
                "experts": list(layer.ffn_sizes),
                "chosen": [list(experts) for experts in layer.chosen],
            }
            for layer in layers
        ],
        "mean_ffn_sizes": list(mean_ffn_sizes(layers)),
    }
