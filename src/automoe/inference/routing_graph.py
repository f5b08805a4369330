"""Which experts a known translation uses, as an ONNX graph: one pass over both sides, without a search.

Inputs: `source` (B, S) and `target_in` (B, T), both padded on the right with PAD. Outputs: of each mixture
layer, under its name, the experts of all tokens, padding included, most probable first: (B * S, top_k) or
(B * T, top_k).
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from automoe.data.vocabulary import PAD_ID
from automoe.inference.engine import Ids
from automoe.inference.finished_graph import open_session
from automoe.inference.graph import INT, Dimensions, Graph, State
from automoe.inference.graph_model import ModelGraph

NO_EXPERT = helper.make_tensor("no_expert", INT, [1], [0])


def routing_graph(model: ModelGraph) -> onnx.ModelProto:
    """The graph of a model; its outputs are as many as it has mixtures."""
    g = Graph()
    read = _step_by_step if model.follows else _at_once
    routed = read(g, model)
    for layer, experts in routed.items():
        g.op("Identity", experts, output=layer)
    inputs: dict[str, tuple[int, Dimensions]] = {"source": (INT, ["B", "S"]), "target_in": (INT, ["B", "T"])}
    return g.model(inputs, dict.fromkeys(routed, (INT, None)))


def _at_once(g: Graph, model: ModelGraph) -> State:
    """All positions of the target in one step of the decoder."""
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
    caches = model.empty_caches(g, B, T)
    model.decode(g, "target_in", g.ints(0), positions_TD, visible_B1TT, caches, source, routed)
    return routed


def _step_by_step(g: Graph, model: ModelGraph) -> State:
    """A position a step, for a decoder that carries something on from each to the next."""
    routed: State = {}
    one = g.ints([1])
    source = model.encode(g, "source", one, routed)
    B, T = g.dimension("source", 0), g.dimension("target_in", 1)
    positions_TD = model.positions(g, T, model.architecture.decoder_width)
    top_k = {
        layer.name: layer.feed_forward.top_k
        for layer in model.architecture.layers("decoder")
        if len(layer.feed_forward.experts) > 1
    }
    nothing = {name: g.op("ConstantOfShape", g.shape(B, 0, k), value=NO_EXPERT) for name, k in top_k.items()}
    start = {"taken": g.ints(0), "visible": g.op("Expand", g.floats(0.0), g.shape(B, 1, 1, 0))}

    def step(g: Graph, now: State) -> tuple[str, State]:
        taken = now["taken"]
        tokens_B1 = g.op("Unsqueeze", g.op("Gather", "target_in", taken, axis=1), g.ints([1]))
        slot_B111 = g.op("Expand", g.floats(0.0), g.shape(B, 1, 1, 1))
        visible_B11P = g.op("Concat", now["visible"], slot_B111, axis=3)
        position_D = g.op("Gather", positions_TD, taken)
        caches = {name: now[name] for name in empty}
        here: State = {}
        _, after = model.decode(g, tokens_B1, taken, position_D, visible_B11P, caches, source, here)
        for name, k in top_k.items():
            new_B1K = g.op("Reshape", here[name], g.shape(B, 1, k))
            after[name] = g.op("Concat", now[name], new_B1K, axis=1)
        length = g.op("Add", taken, g.ints(1))
        more = g.op("Less", length, g.op("Squeeze", T))
        return more, {"taken": length, "visible": visible_B11P, **after}

    empty = model.empty_caches(g, B, one)
    found = g.loop(start | empty | nothing, step)
    return routed | {name: g.op("Reshape", found[name], g.ints([-1, k])) for name, k in top_k.items()}


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
