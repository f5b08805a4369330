"""Writing an export's folder: complete or not at all, and never over somebody else's files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from automoe.errors import InputError


def write_folder(
    output: Path, is_earlier_export: Callable[[Path], bool], write: Callable[[Path], None]
) -> None:
    """Make the folder `output` of what `write(folder)` writes; an earlier export there is replaced.

    Raises:
        InputError: `output` has files that are no export, is no folder, or cannot be written.
    """
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise InputError(f"{output}: is not a folder", ["give the name of a new one"])
    if output.exists() and any(output.iterdir()) and not is_earlier_export(output):
        problem = "it has files that no such export wrote: give a new folder, or empty this one"
        raise InputError(f"{output}: would be overwritten", [problem])
    partial, replaced = (output.parent / f".{output.name}.{os.getpid()}.{part}" for part in ("new", "old"))
    try:
        partial.mkdir(parents=True)
        write(partial)
        if output.exists():
            output.rename(replaced)
        partial.rename(output)
    except (OSError, SafetensorError) as error:
        if replaced.exists():
            replaced.rename(output)
        raise InputError(f"{output}: the export cannot be written", [str(error)]) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
