"""Options that several commands have."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Norm
from automoe.inference.backends import ENGINES, MOST_THREADS

PathT = TypeVar("PathT", str, Path)


def path_argument(text: str, metavar: str | None = None) -> Any:
    """An argument that is a path, a `Path` or a `str`; `~` is the home of the user."""
    return typer.Argument(help=text, metavar=metavar, callback=_at_home)


def path_option(*names: str, text: str, metavar: str | None = None) -> Any:
    """An option that is a path, a `Path` or a `str`; `~` is the home, also where no shell expands it."""
    return typer.Option(*names, help=text, metavar=metavar, callback=_at_home)


def _at_home(path: PathT | None) -> PathT | None:
    return None if path is None else type(path)(os.path.expanduser(path))


def _named(names: Iterable[str], text: str) -> Any:
    """An option whose values are the keys of a table, which a program may have added to."""
    known = list(dict.fromkeys(names))
    return typer.Option(help=text, metavar=f"<{'|'.join(known)}>", autocompletion=lambda: known)


BackendOption = Annotated[str, _named(ENGINES, "What computes: torch is the reference, onnx the fast one.")]
PrecisionOption = Annotated[
    str,
    _named(
        (precision for precisions in ENGINES.values() for precision in precisions),
        "; ".join(f"{backend}: {', '.join(precisions)}" for backend, precisions in ENGINES.items()) + ".",
    ),
]
ModelFolder = Annotated[Path, path_argument("A model folder, e.g. runs/demo/seed-1/train-automoe/model.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=MOST_THREADS, help="By default OMP_NUM_THREADS, or one a core.")
]
ShortlistOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="Tokens that the output layer works on: those that a sentence's own make likely. 0: all.",
    ),
]

_PROTOCOL_OPTIONS: dict[str, Any] = {
    "backend": BackendOption,
    "precision": PrecisionOption,
    "threads": Annotated[int, typer.Option(help="Of the engine.")],
    "beam_size": Annotated[int, typer.Option("--beam-size", "--beam", help="Hypotheses kept a step.")],
    "source_length": Annotated[int, typer.Option(help="Tokens of a sentence.")],
    "target_length": Annotated[int, typer.Option(help="Decoding steps.")],
    "vocabulary_size": Annotated[int, typer.Option(help="Of the output layer.")],
    "norm": Annotated[Norm, typer.Option(help="Position of the layer norms.")],
    "batch": Annotated[int, typer.Option(help="Sentences translated together.")],
    "shortlist": Annotated[
        int, typer.Option(help="Tokens that the output layer works on, for a whole batch. 0: the vocabulary.")
    ],
}


def takes_protocol(*names: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a `MeasuringProtocol`; it gets the value as `protocol`.

    Args:
        names: the fields that are options; all by default.
        defaults: of fields, where they differ from the protocol's own.
    """
    of_protocol = {field.name: field.default for field in fields(MeasuringProtocol)} | defaults
    offered = [name for name in _PROTOCOL_OPTIONS if not names or name in names]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in offered}
            command(protocol=MeasuringProtocol(**chosen), **values)

        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "protocol"
        ]
        added = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=of_protocol[name],
                annotation=_PROTOCOL_OPTIONS[name],
            )
            for name in offered
        ]
        run.__signature__ = inspect.Signature(own + added)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in own + added}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate
