"""Which tokens a translation of some sentences may need, from what their own tokens mostly become.

Needs numpy alone: exported folders carry this file along.

Shapes: B sentences, S source tokens, V vocabulary, K translations of a token, W tokens found.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAD_ID, SPECIAL_TOKENS = 0, 4
COPIED = 65_535  # what a token counts for its own translation: as much as a certain one


def likely_tokens(
    source_BS: NDArray[np.int64],
    tokens: NDArray[Any],
    weights: NDArray[Any],
    shares: NDArray[np.float32],
    size: int,
) -> NDArray[np.int64]:
    """The tokens that are likely in the translation of any of the sentences, sorted, the special ones first.

    Of each sentence those `size` that are expected to occur most often: the sum over its tokens of the
    probabilities that they become it, and over all its share of any text, which decides where nothing else
    does. Equal ones in the order of their ids. Its own tokens, which are names and numbers, are among them.

    Args:
        source_BS: padded on the right.
        tokens, weights: (V, K), what each token becomes, and how probably; `shares`: (V,), of each token in
            target text. Both in 65,535ths.
        size: of one sentence's, the special tokens counted; the vocabulary at most.
    """
    V = len(shares)
    found_V = np.zeros(V, dtype=bool)
    for row in source_BS:
        source = row[row != PAD_ID]
        scores_V = np.bincount(tokens[source].ravel(), weights[source].ravel(), minlength=V) + shares
        scores_V[source] += COPIED
        scores_V[:SPECIAL_TOKENS] = np.inf
        found_V |= _largest(scores_V, min(size, V))
    return np.flatnonzero(found_V)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, by name, without that library; unsigned integers and float32."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    kinds = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "F32": np.float32}
    return {
        name: np.frombuffer(
            content[start:], kinds[about["dtype"]], np.prod(about["shape"]), about["data_offsets"][0]
        ).reshape(about["shape"])
        for name, about in header.items()
    }


def _largest(scores_V: NDArray[Any], size: int) -> NDArray[np.bool_]:
    least = np.partition(scores_V, -size)[-size]
    chosen_V: NDArray[np.bool_] = scores_V > least
    equal = np.flatnonzero(scores_V == least)
    chosen_V[equal[: size - np.count_nonzero(chosen_V)]] = True
    return chosen_V
