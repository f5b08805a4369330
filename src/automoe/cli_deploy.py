"""Commands that use a trained model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

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
