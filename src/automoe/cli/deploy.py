"""Commands that use a trained model."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from automoe.cli.options import (
    BackendOption,
    ModelFolder,
    PrecisionOption,
    ShortlistOption,
    ThreadsOption,
    path_option,
)
from automoe.cli.streams import lines_as_they_come
from automoe.errors import InputError

app = typer.Typer()


@app.command()
def translate(
    model: ModelFolder,
    beam_size: Annotated[int, typer.Option(help="1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="Larger prefers longer translations.")] = 0.6,
    min_length: Annotated[int, typer.Option(help="In tokens, end-of-sentence counted.")] = 2,
    max_length_ratio: Annotated[float, typer.Option(help="At most this times the source's tokens,")] = 1.5,
    max_length_extra: Annotated[int, typer.Option(help="and this many more.")] = 20,
    n_best: Annotated[
        int, typer.Option(help="More than 1: `line ||| translation ||| score`, best first.")
    ] = 1,
    backend: BackendOption = "onnx",
    precision: PrecisionOption = "float32",
    threads: ThreadsOption = None,
    shortlist: ShortlistOption = 0,
) -> None:
    """Translate standard input to standard output, line by line."""
    from automoe.inference.backends import load_engine
    from automoe.inference.beam_settings import BeamSettings
    from automoe.inference.translator import WINDOW_LINES, Translator
    from automoe.progress import counted

    settings = BeamSettings(
        beam_size=beam_size,
        length_penalty=length_penalty,
        min_length=min_length,
        max_length_ratio=max_length_ratio,
        max_length_extra=max_length_extra,
        n_best=n_best,
    )
    translator = Translator(*load_engine(model, backend, precision, threads, shortlist), settings)
    found = translator.translate_windows(lines_as_they_come(WINDOW_LINES))
    for number, translations in enumerate(counted(found, "lines")):
        for translation in translations:
            if n_best == 1:
                print(translation.text, flush=True)  # whoever sent one line may wait for its answer
            else:
                print(f"{number} ||| {translation.text} ||| {translation.score:.4f}", flush=True)


class ExportFormat(StrEnum):
    """What a trained model can be exported to."""

    huggingface = "huggingface"
    onnx = "onnx"


@app.command()
def export(
    model: ModelFolder,
    to: Annotated[ExportFormat, typer.Option("--to", help="The program that is to run it.")],
    output: Annotated[Path, path_option("--output", "-o", text="A new folder.", metavar="DIR")],
    precision: Annotated[
        Literal["float32", "int8"], typer.Option(help="Of the weights, for onnx.")
    ] = "float32",
    shortlist: ShortlistOption = 0,
) -> None:
    """Export a trained model to another program, which then runs it without this one."""
    from automoe.inference.model_folder import told_of_unused_experts

    match to:
        case ExportFormat.huggingface:
            if shortlist:
                mend = "export without --shortlist, or --to onnx"
                raise InputError("a Hugging Face folder has no shortlist", [mend])
            from automoe.export.huggingface import export_huggingface

            export_huggingface(model, output)
        case ExportFormat.onnx:
            from automoe.export.onnx import export_onnx

            export_onnx(model, output, precision, shortlist)
    print(f"Exported to {output}")
    if told := told_of_unused_experts(model):
        print(told, file=sys.stderr)


@app.command()
def serve(
    model: ModelFolder,
    host: Annotated[str, typer.Option(help="0.0.0.0 is every network of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    beam_size: Annotated[int, typer.Option(help="Unless a request says otherwise; 1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="Larger prefers longer translations.")] = 0.6,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="Under which a proxy offers the server, stripped or not.")
    ] = "",
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="Whose pages may ask, e.g. https://example.org; repeatable; *: any."
        ),
    ] = None,
    forwarded_allow_ips: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS,...",
            help="Of proxies whose X-Forwarded-For and -Proto are believed; by default this machine's.",
        ),
    ] = None,
    backend: BackendOption = "onnx",
    precision: PrecisionOption = "float32",
    threads: ThreadsOption = None,
    shortlist: ShortlistOption = 0,
) -> None:
    """Serve translations over HTTP, with a page that shows which expert each token used."""
    from automoe.inference.beam_settings import BeamSettings
    from automoe.serving.http_settings import HttpSettings
    from automoe.serving.server import serve as serve_model

    settings = BeamSettings(beam_size=beam_size, length_penalty=length_penalty)
    http = HttpSettings(
        root_path=root_path,
        cors_origins=tuple(cors_origin or ()),
        forwarded_allow_ips=forwarded_allow_ips,
    )
    serve_model(model, host, port, settings, backend, precision, threads, shortlist, http=http)
