"""A run's folder: one folder a stage, skipped when finished and its inputs are unchanged.

A stage's `stage.json` holds the hash of everything that decides its result. A stage whose hash has
changed starts from an empty folder; one that was interrupted finds what it left and continues.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed

from automoe import __version__
from automoe.errors import InputError
from automoe.storage import disk_errors


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder and the hash of its inputs, an input of what builds on it."""

    folder: Path
    fingerprint: str


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
        owner = path / "run.json"
        if path.is_dir() and any(path.iterdir()) and not owner.exists():
            raise InputError(f"{path}: is not the folder of a run", ["choose another with --runs-folder"])
        if owner.exists():
            name = read_json(owner).get("recipe")
            if name != recipe_name:
                mend = "rename the recipe, choose another --runs-folder, or delete the folder"
                raise InputError(f"{path}: belongs to the recipe {name!r}, not {recipe_name!r}", [mend])
        elif is_first_process():
            write_json(owner, {"recipe": recipe_name})
        wait_for_all()

    def stage(
        self, name: str, inputs: Any, work: Callable[[Path], None], all_processes: bool = False
    ) -> Stage:
        """Run `work(folder)` unless it is done already for these inputs.

        Args:
            inputs: JSON values that decide the result.
            all_processes: under torchrun, every process works; otherwise the first works, the others wait.
        """
        text = json.dumps([__version__, name, inputs], sort_keys=True)
        stage = Stage(self.path / name, hashlib.sha256(text.encode()).hexdigest())
        mark = stage.folder / "stage.json"
        state = read_json(mark) if mark.exists() else {}
        wait_for_all()  # nobody writes before all have read
        if state == {"fingerprint": stage.fingerprint, "finished": True}:
            self._say(f"{name}: done before")
            return stage
        self._say(f"{name}: {'continues' if state.get('fingerprint') == stage.fingerprint else 'starts'}")
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


def join_processes() -> None:
    """Under torchrun, connect this process with the others; alone, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        # The others wait while the first searches; a default timeout of minutes would end them.
        torch.distributed.init_process_group(timeout=timedelta(days=7))


def is_first_process() -> bool:
    """Whether this process writes files and talks to the user."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """A barrier under torchrun; alone, nothing."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def write_json(path: Path, value: Any) -> None:
    """Write atomically: the file is complete or not there.

    Raises:
        InputError: the disk is full or refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        mend = f"delete {path.parent}, then that stage runs again"
        raise InputError(f"{path}: is damaged", [str(error), mend]) from error
