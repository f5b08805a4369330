"""What is said of a latency from a busy machine."""

import pytest

from automoe.cost.measure import summarise
from automoe.cost.noise import why_noisy

QUIET = summarise([1.0] * 20, [9.0] * 20, 0.01, threads=1)


def test_a_quiet_machine_is_believed():
    assert why_noisy(QUIET) is None
    assert why_noisy(QUIET, summarise([1.0] * 20, [9.0] * 20, None, threads=1)) is None


@pytest.mark.parametrize(
    ("decoder_ms", "stolen", "expected", "absent"),
    [
        ([9.0] * 20, 0.37, "took 37% of the processor time", "spreads"),
        ([9.0] * 10 + [19.0] * 10, 0.0, "spreads over 67% of the figure", "took"),
        ([9.0] * 10 + [19.0] * 10, 0.37, "and the middle half of the runs spreads over 67%", "rounds"),
    ],
)
def test_the_reasons_are_named_with_their_figures_and_the_mend(decoder_ms, stolen, expected, absent):
    text = why_noisy(QUIET, summarise([1.0] * 20, decoder_ms, stolen, threads=1))
    assert text is not None
    assert expected in text
    assert absent not in text
    assert "stop other programs" in text
