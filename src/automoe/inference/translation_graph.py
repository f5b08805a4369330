"""A whole translation as one ONNX graph: token ids in, the best hypotheses out.

Inputs: `source` (B, S), each row ending with EOS and padded on the right with PAD; `max_lengths` (B,), the
most tokens each translation may have, EOS counted; `beam_size`, `n_best` and `min_length`, vectors of one;
`length_penalty`, a scalar; and in a graph with a shortlist `shortlist` (W,), the tokens that may be written:
sorted, none twice, the special ones first.
Outputs: `tokens` (B, F, L), padded with PAD; `scores` and `log_probabilities` (B, F), -inf where there is no
hypothesis. F is `n_best`, L the largest of `max_lengths`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Ids
from automoe.inference.graph import FLOAT, INT, Dimensions, Graph, State
from automoe.inference.graph_model import ModelGraph
from automoe.inference.graph_search import SearchInputs, beam_search

INPUTS: dict[str, tuple[int, Dimensions]] = {
    "source": (INT, ["B", "S"]),
    "max_lengths": (INT, ["B"]),
    "beam_size": (INT, [1]),
    "n_best": (INT, [1]),
    "min_length": (INT, [1]),
    "length_penalty": (FLOAT, []),
}
SHORTLIST: dict[str, tuple[int, Dimensions]] = {"shortlist": (INT, ["W"])}
OUTPUTS: dict[str, tuple[int, Dimensions]] = {
    "tokens": (INT, ["B", "F", "L"]),
    "scores": (FLOAT, ["B", "F"]),
    "log_probabilities": (FLOAT, ["B", "F"]),
}


def search_inputs(
    source_BS: Ids, max_lengths: Sequence[int], settings: BeamSettings
) -> dict[str, NDArray[Any]]:
    """What the graph is fed."""
    return {
        "source": source_BS,
        "max_lengths": np.array(max_lengths, dtype=np.int64),
        "beam_size": np.array([settings.beam_size]),
        "n_best": np.array([settings.n_best]),
        "min_length": np.array([settings.min_length]),
        "length_penalty": np.array(settings.length_penalty, dtype=np.float32),
    }


def translation_graph(model: ModelGraph, forced: bool = False, shortlist: bool = False) -> onnx.ModelProto:
    """The graph of a model.

    Args:
        forced: the decoder reads one more input, `forced` (T, B, K), in place of the tokens that it chose.
        shortlist: the output layer, so the softmax too, is of the tokens of the input `shortlist` alone.
    """
    g = Graph()
    inputs = SearchInputs()
    source = model.encode(g, "source", inputs.beam_size)
    longest = g.op("ReduceMax", inputs.max_lengths, keepdims=1)
    shortlist_W = "shortlist" if shortlist else None
    shortlisted = model.shortlisted(g, shortlist_W) if shortlist_W else ()
    positions_LD = model.positions(g, longest, model.architecture.decoder_width)

    def step(
        g: Graph, tokens_BK: str, taken: str, visible_B1KP: str, kept: State, source: State
    ) -> tuple[str, State]:
        if forced:
            tokens_BK = g.op("Gather", "forced", taken)
        position_D = g.op("Gather", positions_LD, taken)
        hidden_BKD, kept = model.decode(g, tokens_BK, taken, position_D, visible_B1KP, kept, source)
        return model.logits(g, hidden_BKD, shortlisted), kept

    caches = model.empty_caches(g, g.dimension("source", 0), inputs.beam_size)
    size = model.vocabulary_size
    found = beam_search(g, step, size, caches, source, inputs, follows=model.follows, shortlist_W=shortlist_W)
    for name in OUTPUTS:
        g.op("Identity", found[name], output=name)
    more: dict[str, tuple[int, Dimensions]] = {"forced": (INT, ["T", "B", "K"])} if forced else {}
    return g.model(INPUTS | (SHORTLIST if shortlist else {}) | more, OUTPUTS)


def encoder_graph(model: ModelGraph) -> onnx.ModelProto:
    """The encoder alone: `source` in, and out what the decoder reads of it."""
    g = Graph()
    found = model.encode(g, "source", g.ints([1]))
    outputs: dict[str, tuple[int, Dimensions]] = {}
    for name, value in found.items():
        if name.startswith("cross_"):
            outputs[g.op("Identity", value, output=name)] = (FLOAT, None)
    return g.model({"source": INPUTS["source"]}, outputs)
