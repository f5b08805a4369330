"""The processes of one run under `torchrun`; alone, a run is its own first process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta


@contextmanager
def joined_processes() -> Iterator[None]:
    """Under torchrun, connect this process with the others, and part from them at the end; alone, nothing.

    A connection that the caller had made is used, and stays. A process that ended while still connected might
    abort: its threads for the others would still run.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch.distributed

    made_here = not torch.distributed.is_initialized()
    if made_here:
        # The others wait while the first searches; a default timeout of minutes would end them.
        torch.distributed.init_process_group(timeout=timedelta(days=7))
    try:
        yield
        torch.distributed.barrier()  # nobody parts while another still talks to it
    finally:
        if made_here:
            torch.distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process writes files and talks to the user."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """A barrier under torchrun; alone, nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
