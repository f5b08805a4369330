"""Commands that use a trained model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from automoe.errors import InputError

app = typer.Typer()


@app.command()
def translate(
    model: Annotated[Path, typer.Argument(help="A model folder, e.g. runs/demo/train-automoe/model.")],
    beam_size: Annotated[int, typer.Option(help="1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="Larger prefers longer translations.")] = 0.6,
) -> None:
    """Translate standard input to standard output, line by line."""
    from automoe.inference.beam import BeamSettings
    from automoe.inference.model_folder import load_model
    from automoe.inference.translator import Translator

    settings = BeamSettings(beam_size=beam_size, length_penalty=length_penalty)
    translator = Translator(*load_model(model), settings)
    for line in translator.translate(_lines_of_standard_input()):
        print(line)


def _lines_of_standard_input() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"standard input, line {number}: is not UTF-8", [str(error)]) from error


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="A model folder, e.g. runs/demo/train-automoe/model.")],
    host: Annotated[str, typer.Option(help="0.0.0.0 is every network of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    beam_size: Annotated[int, typer.Option(help="Unless a request says otherwise; 1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="Larger prefers longer translations.")] = 0.6,
    backend: Annotated[Literal["torch", "onnx"], typer.Option(help="What translates.")] = "torch",
    precision: Annotated[
        Literal["float32", "float16", "int8"], typer.Option(help="Of the weights that translate.")
    ] = "float32",
    threads: Annotated[int | None, typer.Option(min=1, help="By default torch's number.")] = None,
) -> None:
    """Serve translations over HTTP, with a page that shows which expert each token used."""
    try:
        from automoe.serving.server import serve as serve_model
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "fastapi_offline", "prometheus_client", "starlette", "uvicorn"):
            raise
        mend = "pip install 'automoe[serve]'"
        raise InputError(f"serving needs {error.name}, which is not installed", [mend]) from error
    from automoe.inference.beam import BeamSettings

    settings = BeamSettings(beam_size=beam_size, length_penalty=length_penalty)
    serve_model(model, host, port, settings, backend, precision, threads)
