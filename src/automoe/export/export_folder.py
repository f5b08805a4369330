"""Writing an export's folder: complete or not at all, and never over somebody else's files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from automoe.errors import InputError
from automoe.inference.model_folder import CONFIG
from automoe.storage import disk_errors, read_json


def write_folder(output: Path, mark: tuple[str, str], write: Callable[[Path], None]) -> None:
    """Make the folder `output` of what `write(folder)` writes; an earlier export there is replaced.

    Args:
        mark: a key of the folder's `config.json` and what its value begins with, by which an earlier export
            is known.

    Raises:
        InputError: `output` has files or folders that are no export, is no folder, is the one this program
            runs in, or cannot be written; nothing is left of what was begun.
    """
    with disk_errors(output):
        _refuse_what_is_busy(output, mark)
        missing = [folder for folder in output.parents if not folder.exists()]
    partial, replaced = (output.parent / f".{output.name}.{os.getpid()}.{part}" for part in ("new", "old"))
    with disk_errors(output):
        try:
            partial.mkdir(parents=True)
            write(partial)
            if output.exists():
                output.rename(replaced)
            partial.rename(output)
        except InputError as error:
            # The reader knows nothing of the folder in which the files lie until they are complete.
            summary = error.summary.replace(str(partial), str(output))
            raise InputError(summary, error.problems) from error
        finally:
            if replaced.exists() and not output.exists():
                replaced.rename(output)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
            for folder in missing:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()


def _refuse_what_is_busy(output: Path, mark: tuple[str, str]) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise InputError(f"{output}: is not a folder", ["give the name of a new one"])
    here, place = Path.cwd(), output.resolve()
    if place in (here, *here.parents):
        raise InputError(f"{output}: is the folder you are in", ["give the name of a new one"])
    inside = list(output.iterdir()) if output.exists() else []
    if inside and not _is_export(output, mark):
        problem = "it has files that no such export wrote: give a new folder, or empty this one"
        raise InputError(f"{output}: would be overwritten", [problem])
    folders = sorted(path.name for path in inside if path.is_dir() and path.name != "__pycache__")
    if folders:
        problem = f"no export wrote {', '.join(folders)}: give a new folder, or move these away"
        raise InputError(f"{output}: would be overwritten", [problem])


def _is_export(output: Path, mark: tuple[str, str]) -> bool:
    try:
        config = read_json(output / CONFIG, "give a new folder")
    except InputError:
        return False
    key, value = mark
    return isinstance(config, dict) and str(config.get(key)).startswith(value)
