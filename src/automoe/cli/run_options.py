"""Arguments and options that the commands have that work in a run's folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from automoe.cli.options import path_argument, path_option
from automoe.errors import InputError

RecipePath = Annotated[
    Path, path_argument("The run's YAML, or the name of a built-in one, e.g. demo.", "RECIPE")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Replace values, e.g. training.steps=100."),
]
RunsFolder = Annotated[Path, path_option(text="Where the run's folder NAME/ is made.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Delete finished work whose inputs changed, and make it again.")
]


def may_overwrite(overwrite: bool) -> Callable[[InputError], bool]:
    """How it is decided whether finished work may be deleted: by the option, or by asking on a terminal."""

    def decide(refusal: InputError) -> bool:
        if overwrite or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return overwrite
        print(f"automoe: {refusal}", file=sys.stderr)
        if not typer.confirm("Delete it and go on?", err=True):
            print("Nothing was deleted.", file=sys.stderr)
            raise typer.Exit(2)
        return True

    return decide
