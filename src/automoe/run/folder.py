"""A run's folder: one folder a stage, skipped when finished and its inputs are unchanged.

A stage's `stage.json` holds the hash of everything that decides its result. A stage whose hash has
changed starts from an empty folder; one that was interrupted finds what it left and continues.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automoe import __version__
from automoe.errors import InputError
from automoe.processes import is_first_process, wait_for_all
from automoe.storage import digest, disk_errors, read_json, write_json


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder and the hash of its inputs, an input of what builds on it."""

    folder: Path
    fingerprint: str


def read_stage_json(path: Path, *, kind: type = dict) -> Any:
    """Read what a stage wrote with `write_json`.

    Args:
        kind: what the file holds, a `dict` or a `list`.

    Raises:
        InputError: the file is missing or damaged.
    """
    return read_json(path, f"delete {path.parent}, then that stage runs again", kind=kind)


class RunFolder:
    """`runs/NAME`, which belongs to one recipe name.

    Args:
        path: created when missing.
        recipe_name: whose run this is.
        say: hears one line a stage.

    Raises:
        InputError: the folder holds another recipe's run, or something else altogether.
    """

    def __init__(self, path: Path, recipe_name: str, say: Callable[[str], None]) -> None:
        self.path = path
        self._say = say
        self._prefix = ""
        owner = path / "run.json"
        owned = owner.exists()
        if not owned and path.is_dir() and any(path.iterdir()):
            raise InputError(f"{path}: is not the folder of a run", ["choose another with --runs-folder"])
        mend = 'write {"recipe": "NAME"} into it, the name of the recipe whose run this is'
        name = read_json(owner, mend).get("recipe") if owned else recipe_name
        if name != recipe_name:
            mend = "rename the recipe, choose another --runs-folder, or delete the folder"
            raise InputError(f"{path}: belongs to the recipe {name!r}, not {recipe_name!r}", [mend])
        wait_for_all()  # nobody writes before all have looked
        if is_first_process() and not owned:
            write_json(owner, {"recipe": recipe_name})
        wait_for_all()

    def part(self, name: str) -> RunFolder:
        """A folder of stages within this one."""
        part = copy.copy(self)
        part.path = self.path / name
        part._prefix = f"{self._prefix}{name}/"
        return part

    def stage(
        self, name: str, inputs: Any, work: Callable[[Path], None], all_processes: bool = False
    ) -> Stage:
        """Run `work(folder)` unless it is done already for these inputs.

        Args:
            inputs: JSON values that decide the result.
            all_processes: under torchrun, every process works; otherwise the first works, the others wait.
        """
        stage = Stage(self.path / name, digest([__version__, name, inputs]))
        mark = stage.folder / "stage.json"
        state = read_stage_json(mark) if mark.exists() else {}
        wait_for_all()  # nobody writes before all have read
        if state == {"fingerprint": stage.fingerprint, "finished": True}:
            self._say(f"{self._prefix}{name}: done before")
            return stage
        how = "continues" if state.get("fingerprint") == stage.fingerprint else "starts"
        self._say(f"{self._prefix}{name}: {how}")
        if is_first_process() and state.get("fingerprint") != stage.fingerprint:
            with disk_errors(stage.folder):
                if stage.folder.exists():
                    shutil.rmtree(stage.folder)
            write_json(mark, {"fingerprint": stage.fingerprint, "finished": False})
        wait_for_all()
        if all_processes or is_first_process():
            with disk_errors(stage.folder):
                work(stage.folder)
        wait_for_all()
        if is_first_process():
            write_json(mark, {"fingerprint": stage.fingerprint, "finished": True})
        return stage
