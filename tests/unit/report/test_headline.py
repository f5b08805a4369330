"""The answer of a run in words."""

import pytest

from automoe.report.headline import headline
from automoe.report.tables import Result


def row(system, bleu, latency_ms, flops=1e9, seed=1, p=None) -> Result:
    return Result(system, bleu, 40.0, costs={"latency_ms": latency_ms, "flops": flops}, seed=seed, p=p)


BASE = row("base", 20.0, 10.0, 4e9)


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        (
            row("mine", 21.5, 5.0, p=0.003),
            "mine reaches 21.50 BLEU, 1.50 more than base (p = 0.003). A sentence takes 5.0 ms, 2.00 times "
            "as fast as base, with 25% of its FLOPs.",
        ),
        (
            row("mine", 19.0, 40.0, 5e9, p=0.5),
            "mine reaches 19.00 BLEU, 1.00 less than base (not significantly: p = 0.5). A sentence takes "
            "40.0 ms, 4.00 times as long as base, with 125% of its FLOPs.",
        ),
        (
            row("mine", 20.0, 10.0, 4e9),
            "mine reaches 20.00 BLEU, as much as base. A sentence takes 10.0 ms, 1.00 times as fast as base, "
            "with 100% of its FLOPs.",
        ),
    ],
)
def test_it_compares_the_winner_with_the_baseline(mine, expected):
    assert headline([mine, BASE], "mine", "base", "a sentence").text == expected


def test_without_another_system_it_compares_nothing():
    told = headline([BASE], "base", "base", "a batch of 8 sentences")
    assert told.text == "base reaches 20.00 BLEU. A batch of 8 sentences takes 10.0 ms."
    assert {figure.compared for figure in told.figures} == {""}


def test_of_several_seeds_it_is_the_mean_and_ratios_are_of_one_seed():
    rows = [
        row("mine", 20.0, 5.0, seed=2, p=0.04), row("mine", 22.0, 2.0, seed=1, p=0.2),
        row("base", 20.0, 10.0, seed=1), row("base", 19.0, 20.0, seed=2),
    ]  # fmt: skip
    told = headline(rows, "mine", "base", "a sentence")
    assert told.text == (  # (10 / 2 + 20 / 5) / 2
        "mine reaches 21.00 BLEU on average of 2 seeds, 1.50 more than base (not significantly: p = 0.2, "
        "0.04). A sentence takes 3.5 ms, 4.50 times as fast as base, with 100% of its FLOPs."
    )
    assert [(f.name, f.value, f.compared) for f in told.figures] == [
        ("BLEU", "21.00", "base: 19.50"),
        ("chrF", "40.00", "base: 40.00"),
        ("latency (ms)", "3.5", "base: 15.0"),
        ("GFLOPs", "1", "base: 1"),
    ]
