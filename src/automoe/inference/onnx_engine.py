"""The fast engine for CPUs: the graphs of `onnx_graph`, run by ONNX Runtime.

Shapes: B sentences, S source tokens, K beams, P slots of the cache (K a position), H heads, E head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime import OrtValue
from torch import Tensor

from automoe.data.vocabulary import PAD_ID
from automoe.design.architecture import Architecture
from automoe.inference.engine import Extensions
from automoe.inference.onnx_graph import INVISIBLE, GraphPrecision, decoder_graph, encoder_graph
from automoe.model.transformer import Transformer

_CHOSEN = ["log_probabilities", "extensions", "end"]


@dataclass(frozen=True)
class OnnxEncoded:
    """Attributes: cross, the decoder's inputs of these names; source_visible (B, S), 0 at tokens."""

    cross: dict[str, OrtValue]
    source_visible: Tensor


class OnnxState:
    """What the decoder keeps of one batch; `OnnxEngine.step` advances it.

    Args:
        encoded: the batch.
        kept: the decoder's inputs that its outputs of the last step replace: each layer's tensors per
            position, (B, H, P, E), and per beam, (B, K, H, E).
        per_beam: the names of the latter.
    """

    def __init__(
        self, encoded: OnnxEncoded, kept: dict[str, OrtValue], per_beam: frozenset[str], beam_size: int
    ) -> None:
        self.position = 0
        batch = encoded.source_visible.shape[0]
        source_visible = encoded.source_visible[:, None, None].expand(-1, -1, beam_size, -1)
        # The decoder's inputs that stay: cross_keys_i, cross_values_i and source_visible (B, 1, K, S).
        self.source = {**encoded.cross, "source_visible": _ort(source_visible.numpy())}
        self.kept = kept
        self._per_beam = per_beam
        self.visible_BKP = torch.empty(batch, beam_size, 0)
        # A new slot is visible to its own beam.
        self.itself_BKK = (
            torch.full((beam_size, beam_size), INVISIBLE).fill_diagonal_(0).expand(batch, -1, -1)
        )

    def reorder(self, beams_BK: Tensor) -> None:
        """As `EngineState.reorder`.

        What is kept per position stays where it is: a hypothesis takes over what its parent could see.
        """
        self.visible_BKP = self.visible_BKP.gather(
            1, beams_BK[:, :, None].expand(-1, -1, self.visible_BKP.shape[2])
        )
        rows_B1, columns_BK = np.arange(len(beams_BK))[:, None], beams_BK.numpy()
        for name in self._per_beam:
            self.kept[name] = _ort(self.kept[name].numpy()[rows_B1, columns_BK])

    def keep(self, sentences_B: Tensor) -> None:
        """As `EngineState.keep`."""
        indices = sentences_B.numpy()
        self.kept = {name: _ort(value.numpy()[indices]) for name, value in self.kept.items()}
        self.source = {name: _ort(value.numpy()[indices]) for name, value in self.source.items()}
        self.visible_BKP = self.visible_BKP[sentences_B]
        self.itself_BKK = self.itself_BKK[: len(indices)]


class OnnxEngine:
    """An `Engine` of two sessions. Use `OnnxEngine.of`.

    In int8, inputs of a product are rounded as a whole, so a sentence's result depends, slightly, on the
    other sentences of its batch.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        encoder: ort.InferenceSession,
        decoder: ort.InferenceSession,
        architecture: Architecture,
        vocabulary_size: int,
    ) -> None:
        self.architecture = architecture
        self.vocabulary_size = vocabulary_size
        self._encoder = encoder
        self._decoder = decoder
        self._cross = [output.name for output in encoder.get_outputs()]
        names = [output.name for output in decoder.get_outputs() if output.name not in _CHOSEN]
        self._outputs = [*_CHOSEN, *names]
        self._kept = [name.removeprefix("new_") for name in names]

    @staticmethod
    def of(model: Transformer, precision: GraphPrecision, threads: int) -> OnnxEngine:
        """Build the graphs of a model and load them.

        Raises:
            InputError: the model is larger than a graph may be.
        """
        sessions = []
        for make in (encoder_graph, decoder_graph):
            sessions.append(open_session(make(model, precision).SerializeToString(), threads))
        return OnnxEngine(sessions[0], sessions[1], model.architecture, model.vocabulary_size)

    def encode(self, source_BS: Tensor) -> OnnxEncoded:
        """As `Engine.encode`."""
        cross = self._encoder.run_with_ort_values(self._cross, {"source": _ort(source_BS.numpy())})
        hidden = (source_BS == PAD_ID).float() * INVISIBLE
        return OnnxEncoded(dict(zip(self._cross, cross, strict=True)), hidden)

    def start(self, encoded: OnnxEncoded, beam_size: int, max_length: int) -> OnnxState:
        """As `Engine.start`; what is kept per position grows as far as it is used."""
        batch = encoded.source_visible.shape[0]
        kept: dict[str, OrtValue] = {}
        per_beam: set[str] = set()
        for layer in self.architecture.layers("decoder"):
            for state in layer.decoder_state(self.architecture.qkv_dim):
                name = f"{state.name}_{layer.index}"
                match state.per:
                    case "position":
                        shape = batch, state.heads, 0, state.size
                    case "beam":
                        shape = batch, beam_size, state.heads, state.size
                        per_beam.add(name)
                    case "source":
                        continue  # the encoder made it
                    case _:
                        assert_never(state.per)
                kept[name] = _ort(np.zeros(shape, dtype=np.float32))
        return OnnxState(encoded, kept, frozenset(per_beam), beam_size)

    def step(self, tokens_BK: Tensor, state: OnnxState, candidates: int) -> Extensions:
        """As `Engine.step`."""
        state.visible_BKP = torch.cat((state.visible_BKP, state.itself_BKK), dim=2)
        feeds = {
            "tokens": _ort(tokens_BK.numpy()),
            "position": _ort(np.array(state.position)),
            "candidates": _ort(np.array([candidates])),
            "visible": _ort(state.visible_BKP[:, None].numpy()),
            **state.source,
            **state.kept,
        }
        found = self._decoder.run_with_ort_values(self._outputs, feeds)
        state.kept = dict(zip(self._kept, found[len(_CHOSEN) :], strict=True))
        state.position += 1
        return Extensions(*(torch.from_numpy(value.numpy()) for value in found[: len(_CHOSEN)]))


def open_session(graph: bytes | str, threads: int) -> ort.InferenceSession:
    """A session on the CPU of a graph, given as its bytes or its path."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads of the encoder must not take the processor from the decoder, nor from torch.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _ort(array: NDArray[Any]) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
