"""The figures of a training, one record a step: `history.jsonl` for reports, TensorBoard for watching."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from automoe.storage import disk_errors

if TYPE_CHECKING:
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger


def read_history(folder: Path) -> list[dict[str, float]]:
    """The records of a training folder, oldest first; a last line that a kill cut short is left out.

    Keys: `step`, then `loss`, `nll`, `balance`, `rate`, `gradient_norm`, `target_tokens`,
    `tokens_per_second`, and in validation steps `validation/NAME`, all but the speed in nats a token.
    """
    path = folder / "history.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines(True) if line.endswith("\n")]


class History:
    """Appends records; opening it at a checkpoint's step forgets what came after that step.

    Args:
        folder: of the training. `step`: the last one whose record stays.
        tensorboard: gets the same figures.

    Raises:
        InputError: (also by `log` and `flush`) the disk is full.
    """

    def __init__(self, folder: Path, step: int, tensorboard: TensorBoardLogger) -> None:
        path = folder / "history.jsonl"
        kept = [record for record in read_history(folder) if record["step"] <= step]
        self._folder = folder
        self._tensorboard = tensorboard
        with disk_errors(folder):
            temporary = folder / ".history.jsonl.tmp"
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), "utf-8")
            temporary.replace(path)
            self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append one record."""
        with disk_errors(self._folder):
            self._file.write(json.dumps({"step": step, **figures}) + "\n")
            try:
                self._tensorboard.log_metrics(figures, step)
            except ValueError as error:
                # The logger wraps whatever its writer met, a full disk included.
                raise error.__cause__ or error from None

    def flush(self) -> None:
        """Hand all records to the system: from here on they outlive this process."""
        with disk_errors(self._folder):
            self._file.flush()

    def close(self) -> None:
        """Write what is pending and close both."""
        with disk_errors(self._folder):
            self._file.close()
            self._tensorboard.finalize("finished")
