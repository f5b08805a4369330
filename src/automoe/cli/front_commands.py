"""Commands about all that a run's searches scored: their front, and another member of it, trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from automoe.cli.built_in import find_file
from automoe.cli.options import path_argument
from automoe.cli.run_options import Overwrite, RunsFolder, may_overwrite
from automoe.errors import InputError

app = typer.Typer()

RunPath = Annotated[
    Path, path_argument("A run's folder, its recipe's YAML, or the name of a built-in one.", "RUN|RECIPE")
]
SystemOption = Annotated[
    str | None, typer.Option(help="Of this system's search alone; by default of all searches.")
]
SeedOption = Annotated[int | None, typer.Option(help="By default the lowest that the run has.")]


@app.command()
def front(
    run: RunPath,
    system: SystemOption = None,
    seed: SeedOption = None,
    runs_folder: RunsFolder = Path("runs"),
) -> None:
    """List and draw what no other scored candidate of a run beats in all objectives of its searches."""
    from automoe.run.front import scored_searches, write_front
    from automoe.run.recipe import load_recipe

    folder = run
    if not _is_run(run):
        folder = runs_folder / load_recipe(find_file(run, "recipe")).recipe.name
    text, pictures = write_front(scored_searches(folder, seed, system))
    print(text)
    for path in pictures:
        print(f"Picture: {path}")


@app.command(context_settings={"ignore_unknown_options": True})
def pick(
    run: RunPath,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="--COST BOUND... [KEY=VALUE]...",
            help="Bounds on costs, e.g. --latency-ms 12 --memory-bytes 20e6; and the values that the run's "
            "recipe was given, e.g. training.steps=100.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the new system; by default it says the bounds: pick-latency_ms-12.")
    ] = None,
    system: SystemOption = None,
    seed: SeedOption = None,
    runs_folder: RunsFolder = Path("runs"),
    overwrite: Overwrite = False,
) -> None:
    """Train the best candidate under another budget, of those that a run's searches have scored.

    It says what the neighbours on the front cost, lets finals decide where the recipe has them, and trains
    and evaluates in the run's folder: no new supernet, no new search.

    Of a run's folder, the recipe is looked for by the run's name: a file or project here, or a built-in one.
    """
    from automoe.processes import is_first_process, joined_processes
    from automoe.progress import Reporter
    from automoe.run.pick import Pick, pick
    from automoe.run.recipe import load_recipe

    if str(run).startswith("-"):
        raise InputError(f"{run}: is no run", ["write the run or its recipe first, then the bounds"])
    bounds, overrides = bounds_and_overrides(values or [])
    loaded = load_recipe(_recipe_of(run) if _is_run(run) else find_file(run, "recipe"), overrides)
    folder = run if _is_run(run) else runs_folder / loaded.recipe.name
    asked = Pick(bounds, name, system, seed)
    with joined_processes():
        model, bleu = pick(loaded, folder, Reporter(), asked, may_overwrite(overwrite))
    if is_first_process():
        print(f"BLEU:               {bleu:.2f}")
        print(f"Trained model:      {model}")
        print(f"Translate with it:  echo 'Click OK.' | automoe translate {model}")


def bounds_and_overrides(words: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Bounds on costs, spelt as options, and what else there is.

    The costs are those of the table, to which programs may add, so they are no options of the command's own.

    Raises:
        InputError: an option that is no cost, one twice, or a bound that is no number; each is named.
    """
    from automoe.cost.costs import COSTS

    bounds: dict[str, float] = {}
    overrides: list[str] = []
    problems: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        option, has_value, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if name not in COSTS:
            known = ", ".join(f"--{cost.replace('_', '-')}" for cost in COSTS)
            problems.append(f"{option}: no such option, and no cost (costs: {known})")
            continue
        if not has_value:
            value = left.pop(0) if left else ""
        if name in bounds:
            problems.append(f"{option}: given twice")
        try:
            bounds[name] = float(value)
        except ValueError:
            problems.append(f"{option}: expected a number, got {value or 'nothing'}")
    if problems:
        raise InputError("these bounds are impossible", problems)
    return bounds, overrides


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file()


def _recipe_of(run: Path) -> Path:
    """The file of a run's recipe.

    Raises:
        InputError: the run does not say whose it is, or there is no recipe of that name.
    """
    from automoe.storage import read_json

    mend = "give the recipe's file in place of the run's folder"
    name = read_json(run / "run.json", mend).get("recipe")
    if not isinstance(name, str):
        raise InputError(f"{run}: does not say whose run it is", [mend])
    try:
        return find_file(Path(name), "recipe")
    except InputError as error:
        raise InputError(f"{run}: its recipe is not found", [error.summary, mend]) from error
