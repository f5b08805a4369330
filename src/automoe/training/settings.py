"""`TrainingSettings` and `SupernetSettings`: the numbers of a training, as a recipe gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from automoe.errors import AtLeastOne, AtLeastZero, InputError, NotNegative, Positive, Share, checked
from automoe.training.rules import RULES
from automoe.training.schedule import Schedule

OptimizerName = Literal["adam", "muon"]
Precision = Literal["32-true", "bf16-mixed"]

# How often a training is saved and validated, and where it is computed. (On another device sums are rounded
# otherwise, as with other threads or another version of torch.)
UNDECISIVE = ("checkpoint_every", "validate_every", "device")
"""Settings that decide nothing of what a training makes: it continues, and is the same, with others."""

ONCE_DECISIVE = ("validate_every", "device")
"""Of these, what earlier versions took to decide: what they made is known by its value, too."""

LATER = {"optimizer": "adam"}
"""Settings that came later, and how it was without them: at that value they name nothing, as then."""


def decisive(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a training's settings (or of None in place of each), those that decide what it makes."""
    return {
        name: value
        for name, value in values.items()
        if name not in UNDECISIVE and (name not in LATER or value not in (None, LATER[name]))
    }


def _known_rule(name: str) -> str:
    if name not in RULES:
        raise ValueError(f"expected one of {', '.join(RULES)}")
    return name


@checked("these training settings are impossible")
@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What a recipe says about training.

    Args:
        steps: updates. `warmup_steps`: of them, with a linearly growing rate.
        optimizer: `adam` as in the papers; `muon` gives matrices orthogonal updates (`muon.BlockMuon`).
        peak_rate: highest learning rate. `final_rate_ratio`: the last rate over the highest.
        label_smoothing: share of the target probability spread over the vocabulary.
        balance_coefficient: weight of the experts' load-balance loss.
        batch_tokens: target tokens of a micro-batch (what the batch stream is made with).
        accumulation: micro-batches a step, on each process.
        clip_norm: largest norm of a step's gradient; `.inf` is any.
        checkpoint_every, validate_every: steps between two of them.
        average_checkpoints: snapshots of the last fifth whose mean is judged. The result is that mean or,
            of a single model, the last weights if their validation loss is lower. 1 takes the last ones.
        seed: of first weights, the order of batches, sub-networks and dropout.
        device: `auto` takes a GPU where there is one. `precision`: Fabric's name.
        schedule: of the rate after the warm-up, `schedule.learning_rate` says which. `decay_share`: of
            the steps, the last ones in which a `constant` rate falls.

    Raises:
        InputError: listing every value that is out of range.
    """

    steps: AtLeastOne
    peak_rate: Positive
    warmup_steps: AtLeastZero
    final_rate_ratio: Share = 0.05
    label_smoothing: Share = 0.1
    balance_coefficient: NotNegative = 0.01
    batch_tokens: AtLeastOne = 1000
    accumulation: AtLeastOne = 1
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    checkpoint_every: AtLeastOne = 500
    validate_every: AtLeastOne = 500
    average_checkpoints: AtLeastOne = 5
    seed: int = 1
    device: Literal["cpu", "cuda", "auto"] = "auto"
    precision: Precision = "32-true"
    schedule: Schedule = "cosine"
    decay_share: Share = 0.3
    optimizer: OptimizerName = "adam"

    def __post_init__(self) -> None:
        if self.warmup_steps > self.steps:
            problem = f"warmup_steps: expected at most steps ({self.steps}), got {self.warmup_steps}"
            raise InputError("these training settings are impossible", [problem])


# Under a base of pydantic's, pydantic alone makes the dataclass: it would not take one of the library's.
@checked("these training settings are impossible")
class SupernetSettings(TrainingSettings):
    """What a recipe says about training a supernet.

    Attributes:
        rule: which members a step trains, a name of `rules.RULES`.

    Raises:
        InputError: listing every value that is out of range, and the known rules when it is none.
    """

    rule: Annotated[str, AfterValidator(_known_rule)] = "random"
