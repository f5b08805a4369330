"""Commands about what architectures cost: counting, measuring, predicting."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automoe.cli.built_in import find_file
from automoe.cli.options import path_argument, path_option, takes_protocol
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.hat_file import HAT_QKV_DIM
from automoe.errors import InputError

if TYPE_CHECKING:
    from automoe.design.space import SearchSpace

app = typer.Typer()


@app.command()
@takes_protocol(
    *("source_length", "target_length", "vocabulary_size", "beam_size", "norm", "shortlist"),
    *("backend", "precision"),
)
def cost(
    architecture: Annotated[
        Path,
        path_argument("An architecture's YAML, ours or HAT's, or the name of a built-in one."),
    ],
    protocol: MeasuringProtocol,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count parameters, FLOPs, memory and download of an architecture.

    The download is the file that the backend reads, in this precision.
    """
    from automoe.cost.costs import COSTS, Conditions
    from automoe.cost.counting import count
    from automoe.design.architecture_file import load_architecture

    subject = load_architecture(find_file(architecture, "architecture"))
    conditions = Conditions(protocol)
    counts = dataclasses.asdict(count(subject, protocol))
    others = [row for row in COSTS.values() if not row.measured and row.name not in counts]
    values = counts | {row.name: row.price(subject, conditions) for row in others}
    units = {row.name: f" {row.unit}" for row in others}  # of a count, its name says it
    if as_json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            shown = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
            print(f"{name:20} {shown}{units.get(name, '')}")


@app.command()
@takes_protocol()
def latency(
    subject: Annotated[
        Path,
        path_argument("A YAML, the name of a built-in one, or a model folder.", "ARCHITECTURE.yml|MODEL"),
    ],
    protocol: MeasuringProtocol,
    runs: Annotated[int, typer.Option(min=1, help="Measurements.")] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the time of one sentence (of one batch, with --batch) here, by the papers' protocol.

    A model folder has a vocabulary and norms of its own; an architecture gets random weights. Sentences, and
    the tokens of a shortlist, are random. Of a model folder, the peak of the memory is measured as well, in a
    process of its own: beside it stands what is counted for one sentence, `memory_bytes`.
    """
    from automoe.cost.counting import count
    from automoe.cost.measure import measure_latency, random_engine, why_noisy
    from automoe.cost.peak_memory import measure_peak_memory
    from automoe.design.architecture_file import load_architecture
    from automoe.inference.backends import engine_of
    from automoe.inference.model_folder import read_model

    if subject.is_dir():
        stored = read_model(subject)
        of_model = dataclasses.replace(protocol, vocabulary_size=stored.vocabulary_size)
        backend, precision = protocol.backend, protocol.precision
        engine = engine_of(stored, backend, precision, protocol.threads, of_model.shortlister())
    else:
        engine = random_engine(load_architecture(find_file(subject, "architecture")), protocol)
    measured = measure_latency(engine, protocol, runs=runs)
    values = dataclasses.asdict(measured)
    if subject.is_dir():
        counts = count(stored.architecture, dataclasses.replace(of_model, norm=stored.options.norm))
        values["memory_bytes"] = counts.memory_bytes
        try:
            values |= dataclasses.asdict(measure_peak_memory(subject, protocol))
        except InputError as error:
            print(error, file=sys.stderr)
    if as_json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            print(f"{name:17} {value}")
    if (doubt := why_noisy(measured)) is not None:
        print(doubt, file=sys.stderr)


@app.command()
@takes_protocol(backend="onnx")
def profile(
    protocol: MeasuringProtocol,
    space: Annotated[
        Path | None,
        path_option(
            text="The search space's YAML, or the name of a built-in one. With --check: by default the "
            "profile's own."
        ),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="Measurements of every model.")] = 12,
    output: Annotated[Path, path_option("-o", "--output", text="Where to write.")] = Path("device.json"),
    check: Annotated[
        Path | None, path_option(text="Check this profile instead of making one.", metavar="DEVICE.json")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="With --check: random architectures to measure.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure this device for a search space, or with --check, how well a profile predicts.

    A check measures by the profile's own protocol, and draws a picture beside the profile. Of a profile of
    batches (`--batch 64`) it also tells the error of the sentences a second.
    """
    from automoe.design.space import load_space

    choices = None if space is None else load_space(find_file(space, "space"))
    values = (
        _make(protocol, choices, turns, output) if check is None else _check(check, choices, samples, turns)
    )
    if as_json:
        print(json.dumps(values))
    else:
        for name, value in values.items():
            if not isinstance(value, tuple):
                print(f"{name:32} {value:.4g}" if isinstance(value, float) else f"{name:32} {value}")


def _make(protocol: MeasuringProtocol, space: SearchSpace | None, turns: int, output: Path) -> dict[str, Any]:
    from automoe.cost.device.probing import make_profile
    from automoe.progress import Reporter

    if space is None:
        raise InputError("a profile is of a search space", ["name it, such as --space demo"])
    reporter = Reporter()
    made = make_profile(space, protocol, output, reporter.say, turns=turns, progress=reporter.bar("profile"))
    return {"profile": str(output), **made.quality.model_dump()}


def _check(check: Path, space: SearchSpace | None, samples: int, turns: int) -> dict[str, Any]:
    from automoe.cost.device.check import check_profile
    from automoe.cost.device.profile import load_profile
    from automoe.design.space import SearchSpace
    from automoe.progress import Reporter
    from automoe.report.latency_pictures import predicted_against_measured

    reporter = Reporter()
    checked = load_profile(check)
    for warning in checked.problems_with(checked.protocol):
        reporter.say(f"warning: {warning}")
    space = space or SearchSpace.from_dict(checked.space)
    report = check_profile(checked, space, samples, turns=turns, progress=reporter.bar("check"))
    picture = check.with_suffix(".check.png")
    error, tau = report.mean_absolute_percentage_error, report.kendall_tau
    title = f"Mean error {error:.1f} %, Kendall's tau {tau:.3f}"
    if report.batch > 1:
        of_throughput = report.throughput_percentage_error
        reporter.say(
            f"sentences a second, of batches of {report.batch}: mean error {of_throughput:.1f} % "
            f"on {samples} members"
        )
    predicted_against_measured(report.predicted_ms, report.measured_ms, picture, title)
    if not report.good:
        reporter.say("the profile misses its targets: error and bias at most 5 %, tau at least 0.95")
    if report.noisy:
        reporter.say(f"the machine was too busy during {report.noisy} of {samples} measurements")
    return dataclasses.asdict(report) | {"picture": str(picture)}


predictor_app = typer.Typer(no_args_is_help=True)
app.add_typer(predictor_app, name="predictor", help="Latency predictors learned from tables of measurements.")


@predictor_app.callback()
def _predictor() -> None:
    """Keeps `fit` a command of its own: typer would merge a single one into its group."""


@predictor_app.command("fit")
def predictor_fit(
    table: Annotated[Path, path_argument("HAT's columns, one row a model.", "TABLE.csv")],
    output: Annotated[Path | None, path_option("-o", "--output", text="Where to write the JSON.")] = None,
    qkv_dim: Annotated[int, typer.Option(min=1, help="Of the measured models.")] = HAT_QKV_DIM,
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
