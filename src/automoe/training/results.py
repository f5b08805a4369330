"""What a training is given and tells: batches in; progress, judgements and a result out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from automoe.data.batching import Batch
from automoe.errors import InputError


class BatchSource(Protocol):
    """An endless stream of batches whose position is plain JSON (`automoe.data.batching.BatchStream`)."""

    def __next__(self) -> Batch:
        """The next batch; there always is one."""

    def state_dict(self) -> dict[str, Any]:
        """Its position, as JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position of a `state_dict`: the batches after it come again."""


@dataclass(frozen=True)
class TrainingProgress:
    """What the callback hears after each step; `validation` holds the newest losses, by network."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    validation: Mapping[str, float]


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        weights: the file of the weights; the supernet given to `train` holds them too.
        target_tokens: trained on. `seconds`: of wall time, interruptions left out.
        validation: mean negative log-likelihood a token of the final weights, by network.
    """

    weights: Path
    target_tokens: int
    seconds: float
    validation: Mapping[str, float]


@dataclass(frozen=True)
class Judgement:
    """What an unfinished training is worth.

    Attributes:
        step: after which it was judged.
        validation: mean negative log-likelihood a token, by network, of the (averaged) weights.
        target_tokens: trained on until then. `seconds`: of wall time, interruptions left out.
    """

    step: int
    validation: Mapping[str, float]
    target_tokens: int
    seconds: float


class TrainingDiverged(InputError):  # noqa: N818  # as the field says it
    """The loss or the gradient is not a number any more; names the step and the last good checkpoint."""
