import pytest

from automoe.training.schedule import learning_rate, snapshot_steps

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


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (5, 1e-3),  # half way up
        (10, 2e-3),
        (60, 2e-3),  # the last step at the peak: 40 of 100 are left
        (61, 2e-3 * (1 - 0.9 / 40)),
        (80, 2e-3 * (0.1 + 0.9 / 2)),
        (100, 2e-4),
    ],
)
def test_constant_rate_falls_linearly_over_its_last_share(step, rate):
    assert learning_rate(step, **SHAPE, schedule="constant", decay_share=0.4) == pytest.approx(rate)


def test_constant_rate_at_the_ends_of_the_decay_share():
    rates = [learning_rate(step, **SHAPE, schedule="constant", decay_share=0.0) for step in (10, 50, 100)]
    assert rates == [2e-3] * 3
    # No room for so long a decay: it begins where the warm-up ends.
    rates = [learning_rate(step, **SHAPE, schedule="constant", decay_share=1.0) for step in (5, 10, 55, 100)]
    assert rates == pytest.approx([1e-3, 2e-3, 2e-3 * 0.55, 2e-4])


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_learning_rate_when_all_is_warmup(schedule):
    shape = SHAPE | {"warmup_steps": 100, "schedule": schedule}
    assert [learning_rate(step, **shape) for step in (50, 100)] == pytest.approx([1e-3, 2e-3])


def test_snapshots_are_evenly_spaced_over_the_last_fifth():
    assert snapshot_steps(1000, 4) == (850, 900, 950, 1000)
    assert snapshot_steps(1000, 1) == (1000,)
    assert snapshot_steps(3, 5) == (1, 2, 3)
