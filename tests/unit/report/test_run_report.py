"""What a run's report says beside its table and pictures."""

import csv
from dataclasses import replace

import pytest

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.report.notes import budget_note, findings, race_note, unused_experts
from helpers.made_up_report import made_up_page, made_up_result, made_up_seed

OLD = {"latency_ms": 5.12, "maximum_ms": None, "reference_ms": None, "noise": None, "broken": []}
THROUGHPUT = "throughput_sentences_s"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (OLD, "5.1 measured here, which is not the device of the budget."),
        (OLD | {"maximum_ms": 6.0}, "5.1 measured, 6.0 allowed."),
        (OLD | {"maximum_ms": 6.0, "bounded": ["latency_ms"]}, "5.1 measured, 6.0 allowed."),
        (OLD | {"bounded": [THROUGHPUT]}, f"5.1 measured; the bound on {THROUGHPUT} is kept."),
        (
            OLD | {"maximum_ms": 6.0, "bounded": ["latency_ms", THROUGHPUT], "noise": "busy"},
            f"5.1 measured, 6.0 allowed; the bound on {THROUGHPUT} is kept; busy.",
        ),
    ],
)
def test_a_note_says_which_bounds_the_choice_keeps(measured, expected) -> None:
    note = budget_note("hat", {"costs": {"latency_ms": 4.96}, "measured": measured})
    assert note == f"hat: at the end of the search, 5.0 ms were predicted, {expected}"


def test_a_note_tells_a_throughput_as_it_was_predicted_measured_and_asked_for() -> None:
    figure = {"cost": THROUGHPUT, "measured": 830.04, "bound": 800.0}
    measured = OLD | {"bounded": [THROUGHPUT], "figures": [figure]}
    found = {"costs": {THROUGHPUT: 850.25, "flops": 1e9}, "measured": measured}
    assert budget_note("mine", found) == (
        "mine: at the end of the search, 5.1 ms were measured; sentences/s: 850.2 predicted, 830.0 measured, "
        "at least 800.0 asked for."
    )


def test_throughput_and_peak_memory_stand_in_the_table_where_they_were_measured(tmp_path) -> None:
    results = {"slow": made_up_result(LARGE), "fast": made_up_result(with_ffns(8))}
    seed = made_up_seed(results)
    assert "sentences/s" not in report_table(tmp_path, seed)
    assert "peak memory" not in report_table(tmp_path, seed)
    throughputs = {
        name: {"latency_ms": ms, "noise": noise, "batch": 64, "sentences_s": 64_000 / ms}
        for name, ms, noise in (("slow", 640.0, None), ("fast", 160.0, "the machine was busy"))
    }
    latencies = {
        name: latency | {"peak_memory_bytes": size * 2**20}
        for (name, latency), size in zip(seed.latencies.items(), (40, 10), strict=True)
    }
    text = report_table(tmp_path, replace(seed, throughputs=throughputs, latencies=latencies))
    table = [line.split("|") for line in text.partition("\n\n")[0].splitlines()]
    rows = {cells[1].strip(): cells for cells in table}
    place = {heading.strip(): index for index, heading in enumerate(rows["system"])}
    shown = ("sentences/s", "throughput gain", "peak memory (MiB)")
    assert [rows["slow"][place[name]].strip() for name in shown] == ["100.0", "1.00×", "40"]
    assert [rows["fast"][place[name]].strip() for name in shown] == ["400.0", "4.00×", "10"]
    assert "batches of 64" in text
    assert "fast, throughput: the machine was busy." in text


FINALISTS = [{"a": place} for place in range(4)]  # only told apart


def a_race(winner: int, *judged: tuple[int, int, float | None], lost_steps: int = 30) -> dict:
    return {
        "winner": FINALISTS[winner],
        "finalists": FINALISTS,
        "judged": [{"finalist": f, "step": step, "loss": loss} for f, step, loss in judged],
        "lost_steps": lost_steps,
        "steps": 100,
    }


FIRST_RUNG = ((0, 10, 3.0), (1, 10, 2.5), (2, 10, 2.75), (3, 10, 3.5))


@pytest.mark.parametrize(
    ("race", "expected"),
    [
        (  # 10 + 10 + 20 of 100 steps; whole trainings of three losers would be 3
            a_race(1, *FIRST_RUNG, (1, 20, 2.0), (2, 20, 2.125), lost_steps=40),
            "mine: finals of 4: the search's number 2 won, 0.125 nats before the next (the search's first "
            "was 0.500 behind it at step 10); the others took 0.40 trainings, 2.6 less than to train them "
            "all.",
        ),
        (
            a_race(0, (0, 10, 2.0), *FIRST_RUNG[1:], (0, 20, 1.5), (1, 20, 1.75), lost_steps=40),
            "mine: finals of 4: the search's number 1 won, 0.250 nats before the next; the others took 0.40 "
            "trainings, 2.6 less than to train them all.",
        ),
        (  # the search's first lost at the end
            a_race(3, (0, 10, 2.0), *FIRST_RUNG[1:3], (3, 10, 2.2), (0, 20, 1.75), (3, 20, 1.25)),
            "mine: finals of 4: the search's number 4 won, 0.500 nats before the next (the search's first "
            "was 0.500 behind it at step 20); the others took 0.30 trainings, 2.7 less than to train them "
            "all.",
        ),
        (  # the first diverged, and then all others did
            a_race(1, (0, 10, None), *FIRST_RUNG[1:], (1, 20, 2.0), (2, 20, None)),
            "mine: finals of 4: the search's number 2 won; the others took 0.30 trainings, 2.7 less than to "
            "train them all.",
        ),
        (  # the first diverged later
            a_race(1, *FIRST_RUNG, (1, 20, 2.0), (0, 20, None)),
            "mine: finals of 4: the search's number 2 won (the search's first was 0.500 behind it at step "
            "10); the others took 0.30 trainings, 2.7 less than to train them all.",
        ),
    ],
)
def test_a_note_tells_a_race_in_numbers(race, expected) -> None:
    assert race_note("mine", race) == expected


LARGE = dense(16, 32, 2, 2, 1)


def with_ffns(size: int):
    """LARGE with FFNs of another size."""
    return dense(16, size, 2, 2, 1)


def report_of(folder, losses: dict[str, float], seeds=(1,), **architectures) -> str:
    """The table and notes of a report on these systems, trained to these losses with every seed."""
    results = {
        name: made_up_result(architecture, loss=losses[name]) for name, architecture in architectures.items()
    }
    made_up_page(folder, dict.fromkeys(seeds, made_up_seed(results)))
    return (folder / "results.md").read_text(encoding="utf-8")


def report_table(folder, seed) -> str:
    """`results.md` of one seed."""
    made_up_page(folder, {1: seed})
    return (folder / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(0.08, "capacity matters here"), (0.03, "capacity does NOT matter here"), (-0.02, "capacity does NOT")],
)
def test_dense_systems_that_differ_in_their_ffns_alone_tell_if_capacity_matters(tmp_path, gain, verdict):
    losses = {"small": 3.0, "large": 3.0 - gain}
    text = report_of(tmp_path, losses, small=with_ffns(8), large=LARGE)
    (note,) = [line for line in text.splitlines() if "capacity" in line]
    assert note.startswith(f"- {verdict}")
    assert f": large, with larger FFNs than small, ends {gain:+.3f} nats better on validation" in note


@pytest.mark.parametrize(
    "other",
    [
        LARGE,
        replace(with_ffns(8), encoder_width=24),
        replace(with_ffns(8), encoder=with_ffns(8).encoder[:1]),
        replace(
            with_ffns(8), encoder=tuple(replace(x, self_attention_heads=1) for x in with_ffns(8).encoder)
        ),
        replace(with_ffns(8), decoder=LARGE.decoder),
        replace(with_ffns(8), decoder=(replace(with_ffns(8).decoder[0], experts=(8, 8)),)),
    ],
    ids=["equal", "width", "depth", "heads", "one layer as large", "a mixture"],
)
def test_systems_that_differ_in_more_say_nothing_of_capacity(tmp_path, other):
    text = report_of(tmp_path, {"other": 3.0, "large": 2.0}, other=other, large=LARGE)
    assert "| other |" in text
    assert "capacity" not in text


def test_experts_without_a_token_are_named():
    sizes = (EncoderLayer(1, (8, 16, 0)), EncoderLayer(1, (8, 8)))
    mixture = Architecture(8, 8, 8, sizes, (DecoderLayer(1, 1, (16,)),))
    shares = {"encoder.0": (1.0, 0.0, 0.0), "encoder.1": (0.999, 0.001)}
    report = made_up_seed(
        {"mine": made_up_result(mixture, shares=shares), "base": made_up_result(dense(16, 32, 2, 2, 1))}
    )
    (note,) = unused_experts(report)  # an identity expert has nothing to be removed
    assert note.startswith(
        "mine: no token of the test set went to encoder.0's expert 2 of 3; `automoe prune`"
    )
    assert any(note == found for found in findings(report, "base"))


def test_a_student_says_nothing_of_capacity_and_is_compared_with_its_twin(tmp_path):
    """What it learned from a teacher is no effect of its size."""
    results = {"large": (LARGE, 2.5), "small": (with_ffns(8), 3.0), "small-distilled": (with_ffns(8), 2.8)}
    report = made_up_seed(
        {name: made_up_result(architecture, loss=loss) for name, (architecture, loss) in results.items()},
        p={("large", "small"): 0.01, ("large", "small-distilled"): 0.02, ("small", "small-distilled"): 0.03},
    )
    report = replace(report, twins={"small-distilled": "small"}, distilling_seconds=90.0)
    made_up_page(tmp_path, {1: report})
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    (note,) = [line for line in text.splitlines() if "capacity" in line]
    assert "large, with larger FFNs than small, ends" in note
    assert [line for line in text.splitlines() if " against " in line and "BLEU, p" in line] == [
        "- small-distilled against small: +0.50 BLEU, p = 0.03."
    ]
    assert "| distillation, the teacher's translations | 1.5 |" in text


def test_every_seed_has_its_row_of_figures_its_notes_and_its_pictures(tmp_path):
    losses = {"small": 3.0, "large": 2.5}
    text = report_of(tmp_path, losses, seeds=(4, 7), small=with_ffns(8), large=LARGE)
    notes = [line for line in text.splitlines() if "capacity" in line]
    assert [note.partition(": ")[0] for note in notes] == ["- seed 4", "- seed 7"]
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert sorted((row["system"], row["seed"]) for row in rows) == [
        ("large", "4"), ("large", "7"), ("small", "4"), ("small", "7"),
    ]  # fmt: skip
    for seed in (4, 7):
        assert (tmp_path / f"seed-{seed}" / "architecture.png").exists()
