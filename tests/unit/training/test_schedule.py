import math

import pytest

from automoe.errors import InputError
from automoe.training.schedule import learning_rate, snapshot_steps
from automoe.training.settings import TrainingSettings

SHAPE = {"steps": 100, "warmup_steps": 10, "peak_rate": 2e-3, "final_rate_ratio": 0.1}


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (1, 2e-4),  # a tenth of the way up
        (5, 1e-3),
        (10, 2e-3),  # the peak
        (55, 2e-3 * (0.1 + 0.9 / 2)),  # half way down
        (40, 2e-3 * (0.1 + 0.9 * 0.75)),  # cosine of 60 degrees is a half
        (100, 2e-4),
    ],
)
def test_learning_rate_at_known_points(step, rate):
    assert learning_rate(step, **SHAPE) == pytest.approx(rate)


def test_learning_rate_without_warmup_starts_at_the_peak():
    shape = SHAPE | {"warmup_steps": 0}
    assert learning_rate(1, **shape) == 2e-3
    assert learning_rate(100, **shape) == pytest.approx(2e-4)


def test_learning_rate_when_all_is_warmup():
    shape = SHAPE | {"warmup_steps": 100}
    assert [learning_rate(step, **shape) for step in (50, 100)] == pytest.approx([1e-3, 2e-3])


def test_snapshots_are_evenly_spaced_over_the_last_fifth():
    assert snapshot_steps(1000, 4) == (850, 900, 950, 1000)
    assert snapshot_steps(1000, 1) == (1000,)
    assert snapshot_steps(3, 5) == (1, 2, 3)


def test_impossible_settings_list_every_problem():
    with pytest.raises(InputError) as caught:
        TrainingSettings(steps=0, peak_rate=math.nan, warmup_steps=-1, label_smoothing=2, accumulation=0)
    text = str(caught.value)
    for name in ("steps", "peak_rate", "warmup_steps", "label_smoothing", "accumulation"):
        assert f"- {name}: expected" in text


def test_no_more_warmup_than_steps():
    assert TrainingSettings(steps=5, peak_rate=1e-3, warmup_steps=5).warmup_steps == 5
    with pytest.raises(InputError, match=r"warmup_steps: expected at most steps \(5\), got 6"):
        TrainingSettings(steps=5, peak_rate=1e-3, warmup_steps=6)
