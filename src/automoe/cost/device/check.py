"""How well a device profile predicts: random architectures, predicted and measured for real."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from scipy.stats import kendalltau

from automoe.cost.device.probes import Probe
from automoe.cost.device.probing import TURNS, MeasureProbe, measuring, reference_ms, stack_ms
from automoe.cost.device.profile import DeviceProfile
from automoe.design.space import SearchSpace
from automoe.errors import InputError

FEWEST_SAMPLES = 10
MOST_ERROR_PERCENT, LEAST_TAU = 5.0, 0.95  # what a profile should keep
SEED = 2023  # not the one that drew the profile's own random architectures


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Predicted against measured.

    Measured times are corrected for drift: every architecture is measured in turns with the profile's
    reference, and its time is what it would take were the reference as fast as when the profile was made.

    Attributes:
        batch: sentences translated together.
        mean_absolute_percentage_error: of the latency of such a batch.
        throughput_percentage_error: of the sentences a second, likewise.
        kendall_tau: rank correlation of predicted and measured.
        bias_percent: mean of predicted / measured - 1; of all, of the cheapest and the dearest tenth (as
            predicted).
        worst_percent: the largest absolute error.
        drift_percent: how much slower the machine (the reference) is now than for the profile.
        uncorrected_percentage_error: the mean absolute error against the times as they were.
        noisy: measurements that should not be believed.
        good: error, rank correlation and the biases are within the targets (5 %, 0.95, 5 %).
        predicted_ms, measured_ms: of each architecture.
    """

    samples: int
    batch: int
    mean_absolute_percentage_error: float
    throughput_percentage_error: float
    kendall_tau: float
    bias_percent: float
    bias_cheapest_percent: float
    bias_dearest_percent: float
    worst_percent: float
    drift_percent: float
    uncorrected_percentage_error: float
    noisy: int
    good: bool
    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]


def check_profile(
    profile: DeviceProfile,
    space: SearchSpace,
    samples: int,
    *,
    turns: int = TURNS,
    progress: Callable[[int, int, str], None] | None = None,
    measure: MeasureProbe | None = None,
) -> CheckReport:
    """Measure `samples` random architectures of `space` and compare them with their predictions.

    Args:
        turns: of each. `progress`: hears (architectures done, of how many, error of the last).
        measure: replaces the measuring.

    Raises:
        InputError: fewer than 10 samples; the space has another largest dense Transformer than the one
            that the profile was measured beside, or parts that the profile lacks.
    """
    if samples < FEWEST_SAMPLES:
        raise InputError("this check says nothing", [f"samples: at least {FEWEST_SAMPLES}, not {samples}"])
    if str(space.largest_dense()) != profile.quality.reference:
        raise InputError(
            "this profile is of another space",
            [
                f"it was measured beside {profile.quality.reference}",
                f"the largest dense Transformer of the space is {space.largest_dense()}",
            ],
        )
    measure = measure or measuring(space, profile.protocol)
    rng = random.Random(SEED)
    architectures = [space.sample(rng) for _ in range(samples)]
    predicted_ms = [profile.predict(architecture).latency_ms for architecture in architectures]
    then = profile.quality.reference_ms
    ratios, measured_ms = [], []
    for architecture, expected_ms in zip(architectures, predicted_ms, strict=True):
        ratios.append(measure(Probe(architecture, whole=True), turns))
        measured_ms.append(sum(stack_ms(ratios[-1], then).values()))
        if progress is not None:
            error = expected_ms / measured_ms[-1] - 1
            progress(len(ratios), samples, f"{measured_ms[-1]:.0f} ms, predicted {error:+.1%}")
    plain_ms = [sum(stack_ms(ratio, reference_ms([ratio])).values()) for ratio in ratios]
    errors = [p / m - 1 for p, m in zip(predicted_ms, measured_ms, strict=True)]
    by_prediction = [error for _, error in sorted(zip(predicted_ms, errors, strict=True))]
    tenth = max(1, samples // 10)
    cheapest, dearest = statistics.fmean(by_prediction[:tenth]), statistics.fmean(by_prediction[-tenth:])
    mean_error = statistics.fmean(map(abs, errors))
    tau = float(kendalltau(predicted_ms, measured_ms).statistic)
    now = reference_ms(ratios)
    return CheckReport(
        samples=samples,
        batch=profile.protocol.batch,
        mean_absolute_percentage_error=100 * mean_error,
        # The throughput goes by the inverse of the time.
        throughput_percentage_error=100
        * statistics.fmean(abs(m / p - 1) for p, m in zip(predicted_ms, measured_ms, strict=True)),
        kendall_tau=tau,
        bias_percent=100 * statistics.fmean(errors),
        bias_cheapest_percent=100 * cheapest,
        bias_dearest_percent=100 * dearest,
        worst_percent=100 * max(map(abs, errors)),
        drift_percent=100 * (sum(now.values()) / sum(then.values()) - 1),
        uncorrected_percentage_error=100
        * statistics.fmean(abs(p / m - 1) for p, m in zip(predicted_ms, plain_ms, strict=True)),
        noisy=sum(ratio.noisy for ratio in ratios),
        good=100 * max(mean_error, abs(cheapest), abs(dearest)) <= MOST_ERROR_PERCENT and tau >= LEAST_TAU,
        predicted_ms=tuple(predicted_ms),
        measured_ms=tuple(measured_ms),
    )
