"""The learning rate and the snapshots of a training run, as pure functions of the step."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, assert_never

Schedule: TypeAlias = Literal["cosine", "constant"]
"""How the learning rate goes on after the warm-up."""

# Snapshots for checkpoint averaging are spread over this last share of the training.
AVERAGED_SHARE = 0.2


def learning_rate(
    step: int,
    *,
    steps: int,
    warmup_steps: int,
    peak_rate: float,
    final_rate_ratio: float,
    schedule: Schedule = "cosine",
    decay_share: float = 0.3,
) -> float:
    """Linear warm-up to `peak_rate`, then down to `final_rate_ratio * peak_rate`.

    `cosine`: half a cosine (Loshchilov & Hutter, 2017). `constant`: the peak is kept until the last
    `decay_share` of the steps (at least until the warm-up ends), over which the rate falls linearly
    (warmup-stable-decay, Hu et al., 2024; Hägele et al., 2024).

    Args:
        step: the update about to be made, 1 to `steps`. The peak is at `warmup_steps` (at step 1 when
            that is 0), the final rate at `steps`.
    """
    if step <= warmup_steps:
        return peak_rate * step / warmup_steps
    start = max(warmup_steps, 1)
    match schedule:
        case "cosine":
            progress = min((step - start) / max(steps - start, 1), 1.0)
            above = 0.5 * (1 + math.cos(math.pi * progress))
        case "constant":
            start = max(start, steps - round(decay_share * steps))
            above = 1 - min(max(step - start, 0) / max(steps - start, 1), 1.0)
        case _:
            assert_never(schedule)
    return peak_rate * (final_rate_ratio + (1 - final_rate_ratio) * above)


def snapshot_steps(steps: int, snapshots: int) -> tuple[int, ...]:
    """The steps whose weights are averaged: evenly spaced over the last fifth, the last one at the end.

    Fewer than `snapshots` when the training is shorter than that.
    """
    interval = max(1, int(steps * AVERAGED_SHARE) // snapshots)
    return tuple(sorted(steps - i * interval for i in range(snapshots) if steps - i * interval >= 1))
