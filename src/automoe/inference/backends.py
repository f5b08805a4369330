"""Which engines there are, and how one is made.

    torch   the reference: the model itself; float32, and float16 for the storage of its weights
    onnx    ONNX Runtime, the fastest on a CPU; float32 and int8

The libraries behind an engine are imported when it is made, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from automoe.errors import InputError

if TYPE_CHECKING:
    from automoe.data.tokenizer import Tokenizer
    from automoe.inference.engine import Engine
    from automoe.model.transformer import Transformer

Backend: TypeAlias = str
"""A key of `ENGINES`."""
Precision: TypeAlias = str
"""Of the weights; a key of the backend's entry in `ENGINES`."""

EngineMaker: TypeAlias = "Callable[[Transformer, int], Engine]"
"""Makes the engine of a model (in evaluation mode), to compute with so many threads."""


def _torch(precision: Literal["float32", "float16"]) -> EngineMaker:
    def make(model: Transformer, threads: int) -> Engine:
        from automoe.inference.torch_engine import TorchEngine

        return TorchEngine(model, precision)

    return make


def _onnx(precision: Literal["float32", "int8"]) -> EngineMaker:
    def make(model: Transformer, threads: int) -> Engine:
        from automoe.inference.onnx_engine import OnnxEngine

        return OnnxEngine.of(model, precision, threads)

    return make


ENGINES: dict[Backend, dict[Precision, EngineMaker]] = {
    "torch": {"float32": _torch("float32"), "float16": _torch("float16")},
    "onnx": {"float32": _onnx("float32"), "int8": _onnx("int8")},
}
"""Backend and precision to the maker of the engine; one of your own is one more entry."""

MOST_THREADS = 1024
"""More is a slip of the hand, which no machine could start."""

LIBRARIES: dict[Backend, tuple[str, ...]] = {"onnx": ("onnxruntime",)}
"""The distributions, beside torch, whose version decides how fast a backend is; without an entry none."""


def check_engine(backend: Backend, precision: Precision) -> None:
    """Whether there is such an engine.

    Raises:
        InputError: there is none; says which there are.
    """
    if precision not in ENGINES.get(backend, {}):
        offered = "; ".join(f"{name}: {', '.join(precisions)}" for name, precisions in ENGINES.items())
        problem = (
            f"precision: {backend} has no {precision}" if backend in ENGINES else f"backend: no {backend}"
        )
        raise InputError(
            f"backend {backend} with precision {precision} does not exist",
            [f"{problem}; choose of {offered}"],
        )


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
    import torch

    check_engine(backend, precision)
    return ENGINES[backend][precision](model.eval(), threads or torch.get_num_threads())


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
    from automoe.inference.model_folder import load_model

    check_engine(backend, precision)
    model, tokenizer = load_model(folder)
    return make_engine(model, backend, precision, threads), tokenizer
