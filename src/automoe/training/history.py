"""The figures of a training, one record a step: `history.jsonl` for reports, TensorBoard for watching."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from automoe.storage import append_to_journal, disk_errors, read_journal, write_journal

if TYPE_CHECKING:
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger

FILE = "history.jsonl"


def read_history(folder: Path) -> list[dict[str, float]]:
    """The records of a training folder, oldest first; none when there is no history.

    Keys: `step`, then `loss`, `nll`, `balance`, `rate`, `gradient_norm`, `target_tokens`,
    `tokens_per_second`, and in validation steps `validation/NAME`, all but the speed in nats a token.

    Raises:
        InputError: the file is damaged.
    """
    return read_journal(folder / FILE, _record, "delete it; the figures up to now are then lost")


class History:
    """Appends records; opening it at a checkpoint's step forgets what came after that step.

    Records wait in memory until `flush`.

    Args:
        folder: of the training. `step`: the last one whose record stays.
        tensorboard: gets the same figures.

    Raises:
        InputError: (also by every method) the disk is full. Opening: the file is damaged.
    """

    def __init__(self, folder: Path, step: int, tensorboard: TensorBoardLogger) -> None:
        kept = [record for record in read_history(folder) if record["step"] <= step]
        self._folder = folder
        self._tensorboard = tensorboard
        self._pending: list[dict[str, float]] = []
        write_journal(folder / FILE, kept)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Add one record; a figure that is no finite number is left out of the file."""
        finite = {name: figure for name, figure in figures.items() if math.isfinite(figure)}
        self._pending.append({"step": step, **finite})
        with disk_errors(self._folder):
            try:
                self._tensorboard.log_metrics(figures, step)
            except ValueError as error:
                # The logger wraps whatever its writer met, a full disk included.
                raise error.__cause__ or error from None

    def flush(self) -> None:
        """Hand all records to the system: from here on they outlive this process."""
        append_to_journal(self._folder / FILE, self._pending, durable=False)
        self._pending.clear()

    def close(self) -> None:
        """Write what is pending and close TensorBoard's files."""
        self.flush()
        with disk_errors(self._folder):
            self._tensorboard.finalize("finished")


def _record(plain: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(plain.get("step"), int):
        raise ValueError("step: expected a whole number")
    return {name: figure for name, figure in plain.items() if math.isfinite(figure)}
