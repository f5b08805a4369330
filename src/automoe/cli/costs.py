"""Commands about what architectures cost: counting, measuring, predicting."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from automoe.cli.options import BackendOption, PrecisionOption
from automoe.errors import InputError

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
    from automoe.cost.counting import count
    from automoe.design.architecture_file import load_architecture

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
    backend: BackendOption = "torch",
    precision: PrecisionOption = "float32",
    threads: int = 2,
    beam: int = 5,
    source_length: int = 30,
    target_length: int = 30,
    vocabulary_size: int = 32768,
    runs: int = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the time of one sentence on this machine, by the papers' protocol."""
    from automoe.cost.measure import measure_latency, why_noisy
    from automoe.design.architecture_file import load_architecture
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


@app.command()
def profile(
    space: Annotated[
        Path | None, typer.Option(help="The search space's YAML. With --check: by default the profile's own.")
    ] = None,
    backend: BackendOption = "onnx",
    precision: PrecisionOption = "float32",
    threads: int = 2,
    beam: int = 5,
    source_length: int = 30,
    target_length: int = 30,
    vocabulary_size: int = 32768,
    norm: Annotated[Literal["pre", "post"], typer.Option(help="Position of the layer norms.")] = "post",
    turns: Annotated[int, typer.Option(help="Measurements of every model.")] = 12,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write.")] = Path("device.json"),
    check: Annotated[
        Path | None, typer.Option(metavar="DEVICE.json", help="Check this profile instead of making one.")
    ] = None,
    samples: Annotated[int, typer.Option(help="With --check: random architectures to measure.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure this device for a search space, or with --check, how well a profile predicts.

    A check measures by the profile's own protocol, and draws a picture beside the profile.
    """
    from automoe.cost.device.check import check_profile
    from automoe.cost.device.probing import make_profile
    from automoe.cost.device.profile import load_profile
    from automoe.cost.protocol import MeasuringProtocol
    from automoe.design.space import SearchSpace, load_space
    from automoe.progress import Reporter
    from automoe.report.latency_pictures import predicted_against_measured

    reporter = Reporter()
    choices = None if space is None else load_space(space)
    values: dict[str, Any]
    if check is None:
        if choices is None:
            raise InputError("a profile is of a search space", ["name it: --space recipes/spaces/demo.yaml"])
        protocol = MeasuringProtocol(
            backend=backend,
            precision=precision,
            threads=threads,
            beam_size=beam,
            source_length=source_length,
            target_length=target_length,
            vocabulary_size=vocabulary_size,
            norm=norm,
        )
        made = make_profile(
            choices, protocol, output, reporter.say, turns=turns, progress=reporter.bar("profile")
        )
        values = {"profile": str(output), **made.quality.model_dump()}
    else:
        checked = load_profile(check)
        for warning in checked.problems_with(checked.protocol):
            reporter.say(f"warning: {warning}")
        choices = choices or SearchSpace.from_dict(checked.space)
        report = check_profile(checked, choices, samples, turns=turns, progress=reporter.bar("check"))
        picture = check.with_suffix(".check.png")
        values = dataclasses.asdict(report) | {"picture": str(picture)}
        error, tau = report.mean_absolute_percentage_error, report.kendall_tau
        title = f"Mean error {error:.1f} %, Kendall's tau {tau:.3f}"
        predicted_against_measured(report.predicted_ms, report.measured_ms, picture, title)
        if not report.good:
            reporter.say("the profile misses its targets: error and bias at most 5 %, tau at least 0.95")
        if report.noisy:
            reporter.say(f"the machine was too busy during {report.noisy} of {samples} measurements")
    if as_json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            if not isinstance(value, tuple):
                print(f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}")


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
