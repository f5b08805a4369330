"""The recipes, search spaces and architectures that come with the package, by name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from automoe.errors import InputError
from automoe.processes import is_first_process

Kind = Literal["recipe", "space", "architecture"]

_FOLDERS: dict[Kind, str] = {"recipe": ".", "space": "spaces", "architecture": "architectures"}


def _recipes() -> Path:
    """The folder `recipes`, with `data` beside it: in the installed package, or at the root of a clone."""
    package = Path(__file__).parents[1]
    installed = package / "builtin"
    return (installed if installed.is_dir() else package.parents[1]) / "recipes"


def built_in(kind: Kind) -> dict[str, Path]:
    """The files of one kind that come with the package, by name, sorted.

    A name is the file's without its suffix, below the folder of its kind: `demo`, `variants/every`.
    """
    folder = _recipes() / _FOLDERS[kind]
    files = folder.glob("*.yaml") if kind == "recipe" else folder.rglob("*.yaml")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(files)}


def find_file(given: Path, *kinds: Kind) -> Path:
    """The file that an argument of the command line means.

    A file that exists wins, whatever its name, and where a recipe is asked for, a project: a folder with a
    `recipe.yaml`. Anything else is the whole name of one that comes with the package: `demo` is the built-in
    recipe even where there is another folder `demo`, or a file `demo.yaml`. Which file a name stood for is
    said on standard error.

    Args:
        given: a path or a name; the options have put the user's home for a `~`.
        kinds: what it may be the name of; an earlier one wins.

    Raises:
        InputError: there is neither such a file nor such a name; the names there are are listed.
    """
    # os.path, which answers no where pathlib raises: too long a name, a folder that may not be entered.
    if os.path.exists(given) and not os.path.isdir(given):
        return given
    if "recipe" in kinds and os.path.isfile(given / "recipe.yaml"):
        return given / "recipe.yaml"
    beside = [f"{given}{suffix}" for suffix in (".yaml", ".yml") if os.path.isfile(f"{given}{suffix}")]
    names = {kind: built_in(kind) for kind in kinds}
    for kind in kinds:
        if (path := names[kind].get(given.as_posix())) is not None:
            if is_first_process():
                others = "".join(f"; for the file {other} write {other}" for other in beside)
                print(f"{given} is the built-in {kind} {path}{others}", file=sys.stderr)
            return path
    problems = [f"did you mean {other}?" for other in beside]
    problems += [f"built-in {kind}s: {', '.join(names[kind])}" for kind in kinds]
    expected = f"no file, and no built-in {' or '.join(kinds)} of this name"
    raise InputError(f"{given}: there is {expected}", problems)
