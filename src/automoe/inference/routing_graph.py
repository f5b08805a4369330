"""Which experts a known translation uses, as an ONNX graph: one pass over both sides, without a search.

Inputs: `source` (B, S) and `target_in` (B, T), both padded on the right with PAD. Outputs: of each mixture
layer, under its name, the experts of all tokens, padding included, most probable first: (B * S, top_k) or
(B * T, top_k).
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from automoe.data.vocabulary import PAD_ID
from automoe.inference.engine import Ids
from automoe.inference.finished_graph import open_session
from automoe.inference.graph import INT, Dimensions, Graph, State
from automoe.inference.graph_model import ModelGraph


def routing_graph(model: ModelGraph) -> onnx.ModelProto:
    """The graph of a model; its outputs are as many as it has mixtures."""
    g = Graph()
    routed: State = {}
    T = g.dimension("target_in", 1)
    source = model.encode(g, "source", T, routed)
    steps_T = g.op("Range", g.ints(0), g.op("Squeeze", T), g.ints(1))
    # The positions of one sentence are what the beams of a step are: each sees those up to itself.
    later_TT = g.op("Less", g.op("Unsqueeze", steps_T, g.ints([1])), steps_T)
    visible_TT = g.op("Where", later_TT, g.floats(-np.inf), g.floats(0.0))
    B = g.dimension("source", 0)
    visible_B1TT = g.op("Expand", visible_TT, g.shape(B, 1, T, T))
    positions_TD = g.op(
        "Slice", model.positions(g, T, model.architecture.decoder_width), g.ints([0]), T, g.ints([0])
    )
    caches = model.empty_caches(g, B)
    model.decode(g, "target_in", positions_TD, visible_B1TT, caches, source, routed)
    for layer, experts in routed.items():
        g.op("Identity", experts, output=layer)
    inputs: dict[str, tuple[int, Dimensions]] = {"source": (INT, ["B", "S"]), "target_in": (INT, ["B", "T"])}
    return g.model(inputs, dict.fromkeys(routed, (INT, None)))


class OnnxRouter:
    """Tells the experts of known translations.

    Args:
        model: in float32. `threads`: as of `OnnxEngine`.
    """

    def __init__(self, model: ModelGraph, threads: int) -> None:
        self.architecture = model.architecture
        self._session: ort.InferenceSession | None = None
        if not self.architecture.is_dense:
            self._session = open_session(routing_graph(model), threads)

    def __call__(self, source_BS: Ids, target_in_BT: Ids) -> dict[str, Ids]:
        """Of each mixture layer, the experts of every token that is no padding, (N, top_k)."""
        if self._session is None:
            return {}
        names = [output.name for output in self._session.get_outputs()]
        found = self._session.run(names, {"source": source_BS, "target_in": target_in_BT})
        tokens = {"encoder": source_BS.ravel() != PAD_ID, "decoder": target_in_BT.ravel() != PAD_ID}
        return {
            layer: experts[tokens[layer.split(".")[0]]] for layer, experts in zip(names, found, strict=True)
        }
