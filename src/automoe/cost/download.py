"""How large the file is that a model is deployed as, counted without writing it.

Names: V vocabulary, D width of the decoder.
"""

from __future__ import annotations

import math

from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.inference.graph_model import MOST_FOLDED_BYTES, TABLED_POSITIONS
from automoe.inference.weight_shapes import Shapes, weight_shapes

TOLERANCE = 0.01
"""The real file differs by less than this share of it, or by `TOLERATED_BYTES` where that is more."""
TOLERATED_BYTES = 2048

_FLOAT_BYTES, _INT8_BYTES = 4, 1
# Of an ONNX graph beside its weights: the beam search, and the nodes for each decoder layer, for each mixture
# (its routing), and for each tensor. The name, shape and place of a tensor in a safetensors file.
_SEARCH_BYTES, _DECODER_LAYER_BYTES, _MIXTURE_BYTES = 14_300, 1070, 1380
_NODE_BYTES, _ROUNDED_NODE_BYTES, _ENTRY_BYTES = 118, 100, 110


def download_bytes(architecture: Architecture, protocol: MeasuringProtocol) -> int:
    """The bytes of the file with the weights, by the protocol's engine, precision, vocabulary and norm.

    For `onnx` that is the `translation.onnx` that `automoe export --to onnx --precision ...` writes (of a
    model beyond 2 GiB, with its `.data`). Other engines read a model folder: its `model.safetensors`, which
    is float32 whatever the engine makes of it. Tokenizer, shortlist and programs beside it are left out.
    """
    shapes = weight_shapes(architecture, protocol.vocabulary_size, protocol.norm)
    weights = sum(map(math.prod, shapes.values()))
    if protocol.backend != "onnx":
        return _FLOAT_BYTES * weights + _ENTRY_BYTES * len(shapes)
    output_VD = (protocol.vocabulary_size, architecture.decoder_width)
    total = _FLOAT_BYTES * weights + _positions_bytes(architecture)
    mixtures = sum(len(layer.feed_forward.experts) > 1 for layer in architecture.layers())
    total += _SEARCH_BYTES + _DECODER_LAYER_BYTES * len(architecture.decoder)
    total += _MIXTURE_BYTES * mixtures + _NODE_BYTES * len(shapes)
    if protocol.precision == "int8":
        # Embeddings are never rounded, so the rounded output layer stands beside them.
        rounded = _rounded(shapes) | {"output": output_VD}
        # 8 bits a weight, and one scale for each output; both halves of a gate have the same outputs.
        total += _FLOAT_BYTES * math.prod(output_VD)
        total -= (_FLOAT_BYTES - _INT8_BYTES) * sum(map(math.prod, rounded.values()))
        scales = [shape[0] for name, shape in rounded.items() if not name.endswith("of_mean.weight")]
        total += _FLOAT_BYTES * sum(scales) + _ROUNDED_NODE_BYTES * len(scales)
    elif _FLOAT_BYTES * math.prod(output_VD) > MOST_FOLDED_BYTES:
        total += _FLOAT_BYTES * math.prod(output_VD)
    return total


def _rounded(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The matrices that int8 rounds: all but the embeddings and the routers."""
    return {
        name: shape
        for name, shape in shapes.items()
        if len(shape) == 2 and name != "embedding" and not name.endswith("router.weight")
    }


def _positions_bytes(a: Architecture) -> int:
    """Tables of sinusoids, one a width, and for positions beyond them rates and phases, one a stack."""
    tables = sum(TABLED_POSITIONS * width for width in {a.encoder_width, a.decoder_width})
    return _FLOAT_BYTES * tables + (4 + 8) * (a.encoder_width + a.decoder_width)
