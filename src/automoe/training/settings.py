"""`TrainingSettings`: the numbers of a training, as a recipe gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from automoe.errors import InputError


@dataclass(frozen=True)
class TrainingSettings:
    """What a recipe says about training.

    Args:
        steps: updates. `warmup_steps`: of them, with a linearly growing rate.
        peak_rate: Adam's highest learning rate. `final_rate_ratio`: the last rate over the highest.
        label_smoothing: share of the target probability spread over the vocabulary.
        balance_coefficient: weight of the experts' load-balance loss.
        batch_tokens: target tokens of a micro-batch (what the batch stream is made with).
        accumulation: micro-batches a step, on each process.
        clip_norm: largest norm of a step's gradient.
        checkpoint_every, validate_every: steps between two of them.
        average_checkpoints: snapshots of the last fifth whose mean is the result; 1 takes the last weights.
        seed: of sub-networks and dropout.
        device: `auto` takes a GPU where there is one. `precision`: Fabric's name.

    Raises:
        InputError: listing every value that is out of range.
    """

    steps: int
    peak_rate: float
    warmup_steps: int
    final_rate_ratio: float = 0.05
    label_smoothing: float = 0.1
    balance_coefficient: float = 0.01
    batch_tokens: int = 1000
    accumulation: int = 1
    clip_norm: float = 1.0
    checkpoint_every: int = 500
    validate_every: int = 500
    average_checkpoints: int = 5
    seed: int = 1
    device: Literal["cpu", "cuda", "auto"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # of a recipe

    def __post_init__(self) -> None:
        at_least_one = (
            "steps", "batch_tokens", "accumulation", "checkpoint_every", "validate_every",
            "average_checkpoints",
        )  # fmt: skip
        wrong = [
            f"{name}: expected at least 1, got {getattr(self, name)}"
            for name in at_least_one
            if getattr(self, name) < 1
        ]
        for name in ("peak_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                wrong.append(f"{name}: expected more than 0, got {getattr(self, name)}")
        for name in ("final_rate_ratio", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                wrong.append(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if not 0 <= self.warmup_steps <= self.steps:
            wrong.append(f"warmup_steps: expected 0 to steps ({self.steps}), got {self.warmup_steps}")
        if not self.balance_coefficient >= 0:
            wrong.append(f"balance_coefficient: expected at least 0, got {self.balance_coefficient}")
        if wrong:
            raise InputError("these training settings are impossible", wrong)
