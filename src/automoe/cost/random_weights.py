"""Random weights to measure times with: those of a fresh model, but with tokens that spread over the experts.

Shapes: E experts, D width.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automoe.inference.weight_shapes import Shapes

_SUBLAYER_SCALE, _TOKEN_SCALE = 0.1, 10.0


def random_weights(shapes: Shapes, seed: int) -> dict[str, NDArray[np.float32]]:
    """The tensors of these names and shapes, which are a model's.

    As `Transformer.initialise`, that is Xavier uniform for matrices, N(0, 1/D) for the embedding, and norms
    that change nothing; but with the embedding `_TOKEN_SCALE` times as large, the last matrix of a sub-layer
    `_SUBLAYER_SCALE` times, the gates of average attention, which has no last matrix, open by about as much,
    and a router's rows orthogonal, each of length 1.
    """
    rng = np.random.default_rng(seed)
    return {name: _tensor(name, shape, rng) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    if name == "embedding":
        return _normal(shape, rng) * np.float32(_TOKEN_SCALE / math.sqrt(shape[1]))
    if name.endswith("_gate.of_input.bias"):
        return np.full(shape, math.log(_SUBLAYER_SCALE / (1 - _SUBLAYER_SCALE)), np.float32)
    if len(shape) == 1:
        return np.full(shape, not name.endswith("bias"), np.float32)
    if name.endswith("router.weight"):
        return _orthogonal(shape, rng)
    largest = math.sqrt(6 / sum(shape))
    if name.endswith(("out.weight", "down.weight", "candidate.weight")):
        largest *= _SUBLAYER_SCALE
    return np.float32(largest) * (2 * rng.random(shape, dtype=np.float32) - 1)


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    return rng.standard_normal(shape, dtype=np.float32)


def _orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """(E, D): rows orthogonal to each other, or columns where there are more rows."""
    E, D = shape
    tall = np.linalg.qr(_normal((max(E, D), min(E, D)), rng)).Q
    return np.ascontiguousarray(tall.T if E < D else tall)
