"""Commands about what architectures cost: counting, measuring, predicting."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from automoe.backends import Backend, Precision

app = typer.Typer()


@app.command()
def cost(
    architecture: Annotated[Path, typer.Argument(help="An architecture's YAML, ours or HAT's.")],
    source_length: int = 30,
    target_length: int = 30,
    vocabulary_size: int = 32768,
    beam_size: int = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count parameters, FLOPs and memory of an architecture."""
    from automoe.architecture import load_architecture
    from automoe.cost.counting import count

    counts = count(
        load_architecture(architecture),
        source_length=source_length,
        target_length=target_length,
        vocabulary_size=vocabulary_size,
        beam_size=beam_size,
    )
    values = dataclasses.asdict(counts)
    if as_json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            print(f"{name:20} {value:,.4g}" if isinstance(value, float) else f"{name:20} {value:,}")


@app.command()
def latency(
    subject: Annotated[
        Path, typer.Argument(metavar="ARCHITECTURE.yml|MODEL", help="A YAML or a model folder.")
    ],
    backend: Annotated[Backend, typer.Option(help="torch is the reference, onnx the fast one.")] = "torch",
    precision: Annotated[
        Precision, typer.Option(help="torch: float32, float16; onnx: float32, int8.")
    ] = "float32",
    threads: int = 2,
    beam: int = 5,
    source_length: int = 30,
    target_length: int = 30,
    vocabulary_size: int = 32768,
    runs: int = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the time of one sentence on this machine, by the papers' protocol."""
    from automoe.architecture import load_architecture
    from automoe.cost.measure import measure_latency
    from automoe.cost.noise import why_noisy
    from automoe.inference.model_folder import load_model

    measured = measure_latency(
        load_model(subject)[0] if subject.is_dir() else load_architecture(subject),
        backend=backend,
        precision=precision,
        source_length=source_length,
        target_length=target_length,
        beam_size=beam,
        runs=runs,
        threads=threads,
        vocabulary_size=vocabulary_size,
    )
    values = dataclasses.asdict(measured)
    if as_json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            print(f"{name:14} {value}")
    if (doubt := why_noisy(measured)) is not None:
        print(doubt, file=sys.stderr)


predictor_app = typer.Typer(no_args_is_help=True)
app.add_typer(predictor_app, name="predictor", help="Latency predictors learned from tables of measurements.")


@predictor_app.callback()
def _predictor() -> None:
    """Keeps `fit` a command of its own: typer would merge a single one into its group."""


@predictor_app.command("fit")
def predictor_fit(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="HAT's columns, one row a model.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write the JSON.")] = None,
    qkv_dim: Annotated[int, typer.Option(min=1, help="Of the measured models; HAT's is 512.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit the first 80 % of a table of measured latencies; judge the fit on the last 10 %."""
    from automoe.cost.predictor import fit_predictor

    predictor = fit_predictor(table, qkv_dim=qkv_dim)
    if output is not None:
        predictor.save(output)
    values = {
        **predictor.provenance.model_dump(),
        **predictor.quality.model_dump(),
        "feature_ranges": predictor.feature_ranges,
        "predictor": None if output is None else str(output),
    }
    if as_json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            print(f"{name:30} {value}")
