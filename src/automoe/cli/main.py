"""The `automoe` command: arguments in, one clear message out; the work is elsewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automoe import __version__
from automoe.cli import cost_commands, deploy, front_commands, project, prune_command
from automoe.cli.built_in import find_file
from automoe.cli.extras import named_extras
from automoe.cli.options import path_argument
from automoe.cli.run_options import Overrides, Overwrite, RecipePath, RunsFolder, may_overwrite
from automoe.cli.streams import OutputLostError, utf8_streams
from automoe.errors import InputError
from automoe.storage import user_path

if TYPE_CHECKING:
    from automoe.run.pipeline import StageName

app = typer.Typer(
    name="automoe",
    help="Search, train and deploy heterogeneous Mixture-of-Experts Transformers for translation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"automoe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _execute(
    recipe: Path, overrides: list[str] | None, runs_folder: Path, until: StageName, overwrite: bool
) -> None:
    from automoe.processes import is_first_process, joined_processes
    from automoe.progress import Reporter
    from automoe.run.pipeline import run_recipe
    from automoe.run.recipe import load_recipe

    loaded = load_recipe(find_file(recipe, "recipe"), overrides or [])
    with joined_processes():
        outcome = run_recipe(loaded, runs_folder, Reporter(), until, may_overwrite(overwrite))
    if outcome and is_first_process():
        print((outcome.report / "results.md").read_text(encoding="utf-8"))
        print(f"Open in a browser:  {outcome.report / 'report.html'}")
        print(f"Pictures and table: {outcome.report}")
        print(f"Trained model:      {outcome.model}")
        print(f"Translate with it:  echo 'Click OK.' | automoe translate {outcome.model}")


def _stage_command(name: str, until: StageName, text: str) -> None:
    def command(
        recipe: RecipePath,
        overrides: Overrides = None,
        runs_folder: RunsFolder = Path("runs"),
        overwrite: Overwrite = False,
    ) -> None:
        _execute(recipe, overrides, runs_folder, until, overwrite)

    app.command(name, help=text)(command)


_stage_command("run", "report", "Run a whole recipe: from corpus to searched, trained and measured model.")
_stage_command("prepare", "prepare", "The first stage: train the vocabulary, store the corpora as token ids.")
_stage_command("budget", "budget", "Up to the budget: the device profile, the constraints as numbers.")
_stage_command(
    "supernet", "supernet", "Up to the supernet: after the device profile and the budget, train it."
)
_stage_command("search", "search", "Up to the search of architectures under the recipe's constraints.")
_stage_command("finals", "finals", "Up to the finals: the best candidates race by real training.")
_stage_command("train", "train", "Up to the training of the winner and the baselines.")
_stage_command("evaluate", "evaluate", "Up to the evaluation: BLEU, chrF, costs and latency on the test set.")
_stage_command("report", "report", "Up to the report: the table, the pictures and the page, as `run`.")


@app.command()
def fidelity(
    recipe: RecipePath,
    overrides: Overrides = None,
    members: Annotated[int, typer.Option(help="Of the space, trained from scratch.")] = 20,
    rules: Annotated[str, typer.Option(help="Of supernets, compared at equal compute.")] = (
        "random,balanced,sandwich"
    ),
    own_steps: Annotated[str, typer.Option(help="Steps of their own before members are judged.")] = "0,100",
    own_rate: Annotated[float, typer.Option(help="Highest learning rate of those steps.")] = 1e-3,
    share: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Train only the I-th of N parts, for N processes at once."),
    ] = None,
    runs_folder: RunsFolder = Path("runs"),
    overwrite: Overwrite = False,
) -> None:
    """Measure whether losses with a supernet's weights rank members as their own training does."""
    from automoe.processes import is_first_process, joined_processes
    from automoe.progress import Reporter
    from automoe.run.fidelity import Study, study_fidelity
    from automoe.run.recipe import load_recipe

    if bad := [part for part in own_steps.split(",") if not part.strip().isdigit()]:
        raise InputError("--own-steps: expected numbers such as 0,100", [f"got {part!r}" for part in bad])
    steps = tuple(int(part) for part in own_steps.split(","))
    study = Study(members, tuple(rule.strip() for rule in rules.split(",")), steps, own_rate)
    part = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", share or "1/1")
    if part is None or int(part[1]) > int(part[2]):
        raise InputError("--share: expected I/N, such as 1/4 to 4/4", [f"got {share!r}"])
    loaded = load_recipe(find_file(recipe, "recipe"), overrides or [])
    with joined_processes():
        parts = (int(part[1]), int(part[2])) if share else None
        folder = study_fidelity(loaded, runs_folder, Reporter(), study, parts, may_overwrite(overwrite))
    if folder and is_first_process():
        print((folder / "fidelity.md").read_text(encoding="utf-8"))
        print(f"Picture and figures: {folder}")


@app.command()
def space(
    recipe: Annotated[
        Path,
        path_argument("A recipe's or a space's YAML, or the name of a built-in one.", "RECIPE|SPACE"),
    ],
) -> None:
    """Print the size of a search space and its extremes."""
    from automoe.cost.costs import COSTS, Conditions
    from automoe.cost.protocol import MeasuringProtocol
    from automoe.design.space import load_space
    from automoe.storage import read_mapping

    path = find_file(recipe, "recipe", "space")
    plain = read_mapping(path)
    if isinstance(plain.get("space"), str):
        path = path.parent / user_path(plain["space"])
    loaded = load_space(path)
    print(f"{path}: {loaded.size():,} architectures ({loaded.size():.3g})")
    members = {
        "largest": loaded.largest(),
        "largest dense": loaded.largest_dense(),
        "smallest": loaded.smallest(),
    }
    protocol = MeasuringProtocol()
    counted = [cost for cost in COSTS.values() if not cost.measured]
    width = max(len(cost.label) for cost in counted)
    for name, architecture in members.items():
        print(f"\n{name}: {architecture}")
        for cost in counted:
            value = cost.price(architecture, Conditions(protocol))
            print(f"  {cost.label:{width}} {format(value * cost.scale, cost.digits):>12}")
    print(
        f"\nFor one sentence of {protocol.source_length} + {protocol.target_length} tokens, beam "
        f"{protocol.beam_size}, a vocabulary of {protocol.vocabulary_size:,}."
    )


app.add_typer(project.app)
app.add_typer(deploy.app)
app.add_typer(prune_command.app)
app.add_typer(cost_commands.app)
app.add_typer(front_commands.app)


def main() -> None:
    """Run the command; bad input is one message and exit code 2, output that cannot be written one and 1."""
    try:
        with utf8_streams(), named_extras():
            app()
    except InputError as error:
        print(f"automoe: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:  # no file of the user's
            raise
        print(f"automoe: {error.filename}: cannot be used\n  - {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except OutputLostError as error:
        print(f"automoe: {error}", file=sys.stderr)
        sys.exit(1)
