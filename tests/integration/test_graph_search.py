"""The beam search in a graph against the one in steps, around a decoder that is a table of what follows.

Small vocabularies, in which hypotheses run out, and sentences of unlike limits in one batch are what models
seldom meet.
"""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.data.vocabulary import EOS_ID
from automoe.inference import beam
from automoe.inference.beam import Extensions
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.graph import Graph
from automoe.inference.graph_search import SearchInputs, beam_search
from automoe.inference.onnx_engine import hypotheses, open_session
from automoe.inference.translation_graph import INPUTS, OUTPUTS, search_inputs
from helpers.slow_search import assert_same


class TableStepper:
    """A `Stepper` without a source, and its state, which is nothing."""

    device = torch.device("cpu")

    def __init__(self, table_VV) -> None:
        self.log_probabilities_VV = torch.from_numpy(table_VV).log_softmax(dim=1)
        self.vocabulary_size = len(table_VV)

    def start(self, encoded, beam_size, max_length):
        return self

    def reorder(self, beams_BK) -> None:
        pass

    def keep(self, sentences_B) -> None:
        pass

    def step(self, tokens_BK, state, candidates):
        found_BKV = self.log_probabilities_VV[tokens_BK]
        best = found_BKV.topk(candidates, dim=2)
        return Extensions(best.values, best.indices, found_BKV[:, :, EOS_ID])


def table_session(table_VV):
    g = Graph()

    def step(g, tokens_BK, taken, visible, kept, source):
        return g.op("Gather", g.constant("table", table_VV), g.op("Reshape", tokens_BK, g.ints([-1]))), kept

    found = beam_search(g, step, len(table_VV), {}, {}, SearchInputs())
    for name in OUTPUTS:
        g.op("Identity", found[name], output=name)
    given = {name: shape for name, shape in INPUTS.items() if name != "source"}
    return open_session(g.model(given, OUTPUTS), 1)


@settings(deadline=None, max_examples=60)
@given(
    vocabulary_size=st.integers(4, 12),
    beam_size=st.integers(1, 8),
    best=st.floats(0, 1),
    limits=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    length_penalty=st.sampled_from([0.0, 0.6, 5.0]),
    min_length=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_both_find_the_same(vocabulary_size, beam_size, best, limits, length_penalty, min_length, seed):
    rng = np.random.default_rng(seed)
    table_VV = (2 * rng.normal(size=(vocabulary_size, vocabulary_size))).astype(np.float32)
    searched = BeamSettings(
        beam_size,
        length_penalty,
        max_length_ratio=1,
        max_length_extra=0,
        min_length=min_length,
        n_best=1 + int(best * (beam_size - 1)),
    )
    max_lengths = [searched.max_length(limit) for limit in limits]
    feeds = search_inputs(np.zeros((len(limits), 1), np.int64), max_lengths, searched)
    feeds.pop("source")
    found = hypotheses(*table_session(table_VV).run(list(OUTPUTS), feeds))
    with torch.inference_mode():
        expected = beam.beam_search(TableStepper(table_VV), None, limits, searched)
    for mine, reference in zip(found, expected, strict=True):
        assert_same(mine, reference)


def test_of_equal_extensions_a_word_comes_before_an_end():
    table_VV = np.full((6, 6), -20.0, np.float32)
    table_VV[:, [EOS_ID, 3]] = 0
    searched = BeamSettings(1, min_length=1, max_length_ratio=0, max_length_extra=4)
    feeds = search_inputs(np.zeros((1, 1), np.int64), [4], searched)
    feeds.pop("source")
    ((mine,),) = hypotheses(*table_session(table_VV).run(list(OUTPUTS), feeds))
    with torch.inference_mode():
        ((reference,),) = beam.beam_search(TableStepper(table_VV), None, [1], searched)
    assert mine.tokens == reference.tokens == (3, 3, 3)
