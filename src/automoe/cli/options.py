"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from automoe.inference.backends import Backend, Precision

BackendOption = Annotated[
    Backend, typer.Option(help="What computes: torch is the reference, onnx the fast one.")
]
PrecisionOption = Annotated[Precision, typer.Option(help="torch: float32, float16; onnx: float32, int8.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="By default torch's number.")]
