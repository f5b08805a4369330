"""Which engines there are, and how one is made.

    torch   the reference: the model itself; float32, and float16 for the storage of its weights
    onnx    ONNX Runtime, the fastest on a CPU; float32 and int8

The libraries behind an engine are imported when it is made, not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from automoe.errors import InputError

if TYPE_CHECKING:
    from automoe.data.shortlist import Shortlister
    from automoe.data.tokenizer import Tokenizer
    from automoe.inference.engine import Engine
    from automoe.inference.model_folder import BareModel
    from automoe.model.transformer import Transformer

Backend: TypeAlias = str
"""A key of `ENGINES`."""
Precision: TypeAlias = str
"""Of the weights; a key of the backend's entry in `ENGINES`."""

EngineMaker: TypeAlias = "Callable[[Transformer, int, bool, Shortlister | None], Engine]"
"""Makes the engine of a model (in evaluation mode), to compute with so many threads. The bool says whether
its `search` will be given forced tokens, the last argument to which tokens a batch's translations are
restricted: an engine that cannot do that raises an InputError."""
BareEngineMaker: TypeAlias = "Callable[[BareModel, int, bool, Shortlister | None], Engine]"
"""The same of a model's values, without torch; 0 threads is one a core."""


def _torch(precision: Literal["float32", "float16"]) -> EngineMaker:
    def make(model: Transformer, threads: int, forced: bool, shortlister: Shortlister | None) -> Engine:
        from automoe.inference.torch_engine import TorchEngine

        return TorchEngine(model, precision, shortlister)

    return make


def _onnx(precision: Literal["float32", "int8"]) -> EngineMaker:
    def make(model: Transformer, threads: int, forced: bool, shortlister: Shortlister | None) -> Engine:
        from automoe.inference.model_folder import BareModel

        weights = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
        bare = BareModel(model.architecture, model.vocabulary_size, model.options, weights)
        return _bare_onnx(precision)(bare, threads, forced, shortlister)

    return make


def _bare_onnx(precision: Literal["float32", "int8"]) -> BareEngineMaker:
    def make(model: BareModel, threads: int, forced: bool, shortlister: Shortlister | None) -> Engine:
        from automoe.inference.graph_model import ModelGraph
        from automoe.inference.onnx_engine import OnnxEngine

        return OnnxEngine(ModelGraph.of(model, precision), threads, forced, shortlister)

    return make


ENGINES: dict[Backend, dict[Precision, EngineMaker]] = {
    "torch": {"float32": _torch("float32"), "float16": _torch("float16")},
    "onnx": {"float32": _onnx("float32"), "int8": _onnx("int8")},
}
"""Backend and precision to the maker of the engine; one of your own is one more entry."""

BARE_ENGINES: dict[Backend, dict[Precision, BareEngineMaker]] = {
    "onnx": {"float32": _bare_onnx("float32"), "int8": _bare_onnx("int8")},
}
"""The backends that do without torch; for another one the values become a model first."""

MOST_THREADS = 1024
"""More is a slip of the hand, which no machine could start."""

LIBRARIES: dict[Backend, tuple[str, ...]] = {"onnx": ("onnxruntime",)}
"""The distributions, beside torch, whose version decides how fast a backend is; without an entry none."""

GENERATIONS: dict[Backend, str] = {"onnx": "2"}
"""Raised when an engine of ours takes another time than before: older profiles are not of it."""


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
    forced: bool = False,
    shortlister: Shortlister | None = None,
) -> Engine:
    """The engine of a model.

    Args:
        model: put into evaluation mode; `torch` in float32 shares its weights; `onnx` copies them, and reads
            them once more when its encoder is timed alone.
        threads: of ONNX Runtime; None is torch's number. The torch backend uses torch's.
        forced: whether its `search` will be given forced tokens.
        shortlister: which tokens may be written in translations of a batch; None is all.

    Raises:
        InputError: the backend does not have this precision, cannot run it here, or has no shortlist.
    """
    import torch

    check_engine(backend, precision)
    threads = threads or torch.get_num_threads()
    return ENGINES[backend][precision](model.eval(), threads, forced, shortlister)


def load_engine(
    folder: str | Path,
    backend: Backend = "torch",
    precision: Precision = "float32",
    threads: int | None = None,
    shortlist: int = 0,
) -> tuple[Engine, Tokenizer]:
    """The engine of a model folder, and its tokenizer.

    Args:
        shortlist: tokens that a sentence's translation is restricted to; 0 is all.

    Raises:
        InputError: as in `read_model`, `StoredModel.shortlister` and `engine_of`.
    """
    from automoe.inference.model_folder import read_model

    check_engine(backend, precision)
    stored = read_model(folder)
    return engine_of(stored, backend, precision, threads, stored.shortlister(shortlist)), stored.tokenizer


def needs_torch(backend: Backend, precision: Precision) -> bool:
    """Whether `engine_of` imports torch."""
    return precision not in BARE_ENGINES.get(backend, {})


def engine_of(
    bare: BareModel,
    backend: Backend,
    precision: Precision,
    threads: int | None = None,
    shortlister: Shortlister | None = None,
    forced: bool = False,
) -> Engine:
    """The engine of a model's values, such as those in a model folder.

    Args:
        threads: None is what the variable OMP_NUM_THREADS says, or else one a core. torch, where it is
            needed, goes on with so many.
        shortlister, forced: as in `make_engine`.

    Raises:
        InputError: as in `make_engine`.
    """
    check_engine(backend, precision)
    if not needs_torch(backend, precision):
        return BARE_ENGINES[backend][precision](bare, threads or usual_threads(), forced, shortlister)
    import torch

    from automoe.inference.model_folder import model_of

    if threads is not None:
        torch.set_num_threads(threads)
    return make_engine(model_of(bare), backend, precision, threads, forced, shortlister)


def usual_threads() -> int:
    """What the variable OMP_NUM_THREADS says, or else 0, which is one a core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(wanted), os.cpu_count() or 1) if wanted.isdecimal() else 0
