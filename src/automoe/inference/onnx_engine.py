"""The fast engine for CPUs: the graph of `translation_graph`, run by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from automoe.data.shortlist import Shortlister
from automoe.data.vocabulary import PAD_ID
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Hypothesis, Ids
from automoe.inference.finished_graph import open_session
from automoe.inference.graph_model import ModelGraph
from automoe.inference.translation_graph import OUTPUTS, encoder_graph, search_inputs, translation_graph


class OnnxEngine:
    """An `Engine` of one session.

    In int8, inputs of a product are rounded as a whole, so a sentence's result depends, slightly, on the
    other sentences of its batch.

    Args:
        model: what its graph is made of.
        threads: 0 is one a core.
        forced: whether `search` will be given tokens that the decoder reads.
        shortlister: which tokens may be written in translations of a batch; None is all.
    """

    def __init__(
        self, model: ModelGraph, threads: int, forced: bool = False, shortlister: Shortlister | None = None
    ) -> None:
        self._model, self._threads, self._shortlister = model, threads, shortlister
        self.architecture, self.vocabulary_size = model.architecture, model.vocabulary_size
        self._session = open_session(translation_graph(model, forced, shortlister is not None), threads)
        self._encoder: ort.InferenceSession | None = None

    def search(
        self, source_BS: Ids, settings: BeamSettings, forced_TBK: Ids | None = None
    ) -> list[list[Hypothesis]]:
        """As `Engine.search`."""
        lengths = [settings.max_length(length) for length in (source_BS != PAD_ID).sum(axis=1).tolist()]
        feeds = search_inputs(source_BS, lengths, settings)
        if self._shortlister is not None:
            feeds["shortlist"] = self._shortlister(source_BS)
        if forced_TBK is not None:
            feeds["forced"] = forced_TBK
        return hypotheses(*self._session.run(list(OUTPUTS), feeds))

    def encode(self, source_BS: Ids) -> list[NDArray[np.float32]]:
        """As `Engine.encode`, by a session of its own, which the first call makes."""
        if self._encoder is None:
            self._encoder = open_session(encoder_graph(self._model), self._threads)
        found: list[NDArray[np.float32]] = self._encoder.run(None, {"source": source_BS})
        return found


def hypotheses(
    tokens_BFL: Ids, scores_BF: NDArray[np.float32], log_probabilities_BF: NDArray[np.float32]
) -> list[list[Hypothesis]]:
    """What a translation graph returned, sentence by sentence."""
    return [
        [
            Hypothesis(tuple(tokens_L[tokens_L != PAD_ID].tolist()), float(score), float(log_probability))
            for tokens_L, score, log_probability in zip(*sentence, strict=True)
            if score != -np.inf
        ]
        for sentence in zip(tokens_BFL, scores_BF, log_probabilities_BF, strict=True)
    ]
