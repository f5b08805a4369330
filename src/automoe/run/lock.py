"""The lock of a run: it is at work in one place only, and a killed process holds no lock."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from automoe.errors import InputError
from automoe.processes import is_first_process
from automoe.storage import disk_errors


@contextlib.contextmanager
def locked(path: Path, say: Callable[[str], None], *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of the run in the folder `path`; of the processes of one run, the first holds it.

    The system keeps the lock, and lets go of it when the process ends, however that ends. Where there are no
    such locks (Windows, some network file systems), nothing is held.

    Args:
        say: hears when the file system has no locks.
        shared: together with others that share it, as the parts of a fidelity study do.

    Raises:
        InputError: another process is at work on this run.
    """
    if not is_first_process() or os.name == "nt":
        yield
        return
    import fcntl

    with disk_errors(path):
        file = (path / "lock").open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            mend = "wait for it, or end it; a run of another name (name=OTHER) goes on beside it"
            raise InputError(
                f"{path}: this run is at work already", [*filter(None, [holder]), mend]
            ) from error
        except OSError as error:
            say(f"{path}: cannot be locked ({error.strerror}); take care not to start this run twice")
        with disk_errors(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield
