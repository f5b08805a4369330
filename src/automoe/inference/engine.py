"""What a beam search needs of a model, whatever computes it, and the ways to get one.

    torch   the reference: the model itself; float32, and float16 for the storage of its weights
    onnx    ONNX Runtime, the fastest on a CPU; float32 and int8

Shapes: B sentences, S source tokens, K beams, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from automoe.data.tokenizer import Tokenizer
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.inference.backends import Backend, Precision
from automoe.inference.model_folder import load_model
from automoe.model.transformer import Transformer


class Extensions(NamedTuple):
    """The tokens that may follow each hypothesis.

    Attributes:
        log_probability_BKC: of the most probable tokens, best first.
        tokens_BKC: int64, those tokens.
        end_BK: the log probability of end-of-sentence, whether or not it is among them.
    """

    log_probability_BKC: Tensor
    tokens_BKC: Tensor
    end_BK: Tensor


class State(Protocol):
    """What an engine remembers of a batch between two steps."""

    def reorder(self, beams_BK: Tensor) -> None:
        """Row k of sentence b continues what row `beams_BK[b, k]` of it had been."""

    def keep(self, sentences_B: Tensor) -> None:
        """Only these sentences (indices) stay, in this order."""


class Engine(Protocol):
    """A model that can be searched. Called in `torch.inference_mode`, by one thread at a time."""

    @property
    def architecture(self) -> Architecture: ...

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def encode(self, source_BS: Tensor) -> Any:
        """Encode token ids, int64, padded on the right; what comes back is for `start`."""

    def start(self, encoded: Any, beam_size: int, max_length: int) -> State:
        """Before the first of at most `max_length` positions."""

    def step(self, tokens_BK: Tensor, state: Any, candidates: int) -> Extensions:
        """Decode one position: the best `candidates` tokens after `tokens_BK`; advances the state."""


def make_engine(
    model: Transformer,
    backend: Backend = "torch",
    precision: Precision = "float32",
    threads: int | None = None,
) -> Engine:
    """The engine of a model.

    Args:
        model: put into evaluation mode; `torch` in float32 shares its weights, the others copy them.
        threads: of ONNX Runtime; None is torch's number. The torch backend uses torch's.

    Raises:
        InputError: the backend does not have this precision, or cannot run it here.
    """
    makers = _MAKERS.get(backend, {})
    if precision not in makers:
        offered = "; ".join(f"{name}: {', '.join(precisions)}" for name, precisions in _MAKERS.items())
        raise InputError(
            f"backend {backend} with precision {precision} does not exist", [f"choose of {offered}"]
        )
    return makers[precision](model.eval(), threads or torch.get_num_threads())


def load_engine(
    folder: str | Path,
    backend: Backend = "torch",
    precision: Precision = "float32",
    threads: int | None = None,
) -> tuple[Engine, Tokenizer]:
    """The engine of a model folder, and its tokenizer.

    Raises:
        InputError: as in `load_model` and `make_engine`.
    """
    model, tokenizer = load_model(folder)
    return make_engine(model, backend, precision, threads), tokenizer


def _torch(precision: Literal["float32", "float16"]) -> Callable[[Transformer, int], Engine]:
    def make(model: Transformer, threads: int) -> Engine:
        from automoe.inference.torch_engine import TorchEngine

        return TorchEngine(model, precision)

    return make


def _onnx(precision: Literal["float32", "int8"]) -> Callable[[Transformer, int], Engine]:
    def make(model: Transformer, threads: int) -> Engine:
        from automoe.inference.onnx_engine import OnnxEngine  # imported when used: it costs 0.3 s

        return OnnxEngine.of(model, precision, threads)

    return make


_MAKERS: dict[str, dict[str, Callable[[Transformer, int], Engine]]] = {
    "torch": {"float32": _torch("float32"), "float16": _torch("float16")},
    "onnx": {"float32": _onnx("float32"), "int8": _onnx("int8")},
}
