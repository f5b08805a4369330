"""The `automoe` command: arguments in, one clear message out; the work is elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automoe.errors import InputError

if TYPE_CHECKING:
    from automoe.pipeline import StageName

app = typer.Typer(
    name="automoe",
    help="Search, train and deploy heterogeneous Mixture-of-Experts Transformers for translation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="The run's YAML, e.g. recipes/demo.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Replace values, e.g. training.steps=100."),
]
RunsFolder = Annotated[Path, typer.Option(help="Where the run's folder NAME/ is made.")]


def _execute(recipe: Path, overrides: list[str] | None, runs_folder: Path, until: StageName) -> None:
    from automoe.pipeline import Pipeline
    from automoe.progress import Reporter
    from automoe.recipe import load_recipe
    from automoe.stages import is_first_process, join_processes

    loaded = load_recipe(recipe, overrides or [])
    join_processes()
    outcome = Pipeline(loaded, runs_folder, Reporter()).execute(until)
    if outcome and is_first_process():
        print((outcome.report / "results.md").read_text(encoding="utf-8"))
        print(f"Pictures and table: {outcome.report}")
        print(f"Trained model:      {outcome.model}")
        print(f"Translate with it:  echo 'Click OK.' | automoe translate {outcome.model}")


def _stage_command(name: str, until: StageName, text: str) -> None:
    def command(
        recipe: RecipePath, overrides: Overrides = None, runs_folder: RunsFolder = Path("runs")
    ) -> None:
        _execute(recipe, overrides, runs_folder, until)

    app.command(name, help=text)(command)


_stage_command("run", "report", "Run a whole recipe: from corpus to searched, trained and measured model.")
_stage_command("prepare", "prepare", "Stage 1: train the vocabulary, store the corpora as token ids.")
_stage_command("supernet", "supernet", "Up to stage 2: train the supernet.")
_stage_command("search", "search", "Up to stage 3: search architectures under the recipe's constraints.")
_stage_command("train", "train", "Up to stage 4: train the winner and the baselines.")
_stage_command("evaluate", "evaluate", "Up to stage 5: BLEU, chrF, costs and latency on the test set.")
_stage_command("report", "report", "Up to stage 6: the table and the pictures.")


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
def space(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE|SPACE", help="A recipe's or a space's YAML.")],
) -> None:
    """Print the size of a search space and its extremes."""
    from automoe.cost.counting import count
    from automoe.space import load_space
    from automoe.yaml_file import read_mapping

    plain = read_mapping(recipe)
    path = recipe.parent / plain["space"] if isinstance(plain.get("space"), str) else recipe
    loaded = load_space(path)
    print(f"{path}: {loaded.size():,} architectures ({loaded.size():.3g})")
    members = {
        "largest": loaded.largest(),
        "largest dense": loaded.largest_dense(),
        "smallest": loaded.smallest(),
    }
    for name, architecture in members.items():
        costs = count(architecture)
        print(f"\n{name}: {architecture}")
        print(f"  parameters        {costs.parameters:>14,} ({costs.active_parameters:,.0f} active)")
        print(f"  FLOPs             {costs.flops:>14,.0f} (one sentence of 30 + 30 tokens)")


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
    from automoe.inference.model_folder import load_model

    measured = measure_latency(
        load_model(subject)[0] if subject.is_dir() else load_architecture(subject),
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
    if measured.noisy:
        print("the machine was too busy: do not believe this figure", file=sys.stderr)


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


def main() -> None:
    """Run the command; bad input is one message and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"automoe: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output went away, as in `automoe translate ... | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
