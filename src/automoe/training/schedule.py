"""The learning rate and the snapshots of a training run, as pure functions of the step."""

from __future__ import annotations

import math

# Snapshots for checkpoint averaging are spread over this last share of the training.
AVERAGED_SHARE = 0.2


def learning_rate(
    step: int, *, steps: int, warmup_steps: int, peak_rate: float, final_rate_ratio: float
) -> float:
    """Linear warm-up to `peak_rate`, then half a cosine down to `final_rate_ratio * peak_rate`.

    Args:
        step: the update about to be made, 1 to `steps`. The peak is at `warmup_steps` (at step 1 when
            that is 0), the end of the cosine at `steps`.
    """
    if step <= warmup_steps:
        return peak_rate * step / warmup_steps
    start = max(warmup_steps, 1)
    progress = min((step - start) / max(steps - start, 1), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak_rate * (final_rate_ratio + (1 - final_rate_ratio) * cosine)


def snapshot_steps(steps: int, snapshots: int) -> tuple[int, ...]:
    """The steps whose weights are averaged: evenly spaced over the last fifth, the last one at the end.

    Fewer than `snapshots` when the training is shorter than that.
    """
    interval = max(1, int(steps * AVERAGED_SHARE) // snapshots)
    return tuple(sorted(steps - i * interval for i in range(snapshots) if steps - i * interval >= 1))
