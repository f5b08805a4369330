"""The results table, checked to the last character."""

import csv
import io
from dataclasses import replace

import pandas
import pytest

from automoe.errors import InputError
from automoe.report import tables
from automoe.report.tables import Result

# fmt: off
RESULTS = [
    Result(
        "dense", 12.0, 40.0, 12.5, 118.0,
        {
            "latency_ms": 120.0, "flops": 1.2e9, "parameters": 3e6, "active_parameters": 3e6,
            "memory_bytes": 200 * 2**20,
        },
        1.2e9, 0.0, 6.5, target_tokens=2_500_000,
    ),
    Result(
        "auto|moe", bleu=13.456, predicted_latency_ms=49.04,
        costs={"latency_ms": 50.0, "flops": 0.8e9, "parameters": 5e6},
        flops_as_routed=0.7654e9, sparsity=0.6,
    ),
]
# fmt: on


def test_markdown_has_a_row_a_system_and_a_dash_for_what_is_unknown() -> None:
    assert tables.results_table(RESULTS, "dense").markdown() == (
        "| system | BLEU | chrF | tokenised BLEU | predicted (ms) | latency (ms) | speed-up | GFLOPs "
        "| GFLOPs as routed | FLOPs reduction "
        "| parameters (M) | active (M) | sparsity | memory (MiB) "
        "| target tokens (M) | training (min) |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: "
        "| ---: | ---: | ---: |\n"
        "| dense | 12.00 | 40.00 | 12.50 | 118.0 | 120.0 | 1.00× | 1.2 | 1.2 | 1.00× | 3.00 | 3.00 "
        "| 0% | 200 | 2.50 | 6.5 |\n"
        "| auto\\|moe | 13.46 | – | – | 49.0 | 50.0 | 2.40× | 0.8 | 0.765 | 1.50× | 5.00 | – | 60% "
        "| – | – | – |\n"
    )


def test_csv_keeps_every_digit_and_pandas_reads_what_is_missing() -> None:
    text = tables.to_csv(RESULTS, "dense")
    assert next(csv.reader(io.StringIO(text))) == [
        "system", "seed", "bleu", "chrf", "tokenised_bleu", "predicted_latency_ms", "latency_ms", "speed_up",
        "flops", "flops_as_routed", "flops_reduction", "parameters", "active_parameters", "sparsity",
        "memory_bytes", "target_tokens", "train_minutes", "p",
    ]  # fmt: skip
    frame = pandas.read_csv(io.StringIO(text)).set_index("system")
    row = frame.loc["auto|moe"]
    assert row["bleu"] == 13.456
    assert row["speed_up"] == pytest.approx(2.4)
    assert row["flops_reduction"] == pytest.approx(1.5)
    assert row.isna().to_dict() | {"chrf": True, "memory_bytes": True} == row.isna().to_dict()
    assert not frame.loc["dense"].drop("p").isna().any()


def test_a_reference_without_latency_gives_no_speed_up() -> None:
    text = tables.to_csv([Result("dense"), RESULTS[1]], "dense")
    assert pandas.read_csv(io.StringIO(text))["speed_up"].isna().all()


def test_a_cost_has_a_column_where_a_row_has_it() -> None:
    with_throughput = Result("dense", costs={"latency_ms": 50.0, "throughput_sentences_s": 20.0})
    text = tables.results_table([with_throughput], "dense").markdown()
    headings = (
        "| latency (ms) | speed-up | sentences/s | throughput gain | target tokens (M) | training (min) |"
    )
    assert headings in text
    assert "| 50.0 | 1.00× | 20.0 | 1.00× | – | – |" in text


def test_a_throughput_gain_is_of_more_sentences_a_second_than_the_reference_has() -> None:
    made = [
        Result(name, costs={"throughput_sentences_s": s}) for name, s in (("base", 50.0), ("fast", 210.0))
    ]
    frame = pandas.read_csv(io.StringIO(tables.to_csv(made, "base"))).set_index("system")
    assert frame["throughput_gain"].to_dict() == {"base": 1.0, "fast": pytest.approx(4.2)}


def of_seeds(system: str, latency_ms: tuple, flops: tuple, **columns: tuple) -> list[Result]:
    """Results of the seeds 1, 2, ...: each column has the values of all."""
    return [
        Result(
            system,
            seed=seed + 1,
            costs={"latency_ms": latency_ms[seed], "flops": flops[seed]},
            **{name: values[seed] for name, values in columns.items()},
        )
        for seed in range(len(flops))
    ]


SEVERAL = [
    *of_seeds(
        "dense", (100.0, 110.0, 120.0), (2e9, 2e9, 2e9),
        bleu=(20.0, 21.0, 22.0), chrf=(50.0, 50.0, 50.0), train_minutes=(6.0, 7.0, 8.0),
        target_tokens=(2_000_000, 2_000_000, 2_000_000),
    ),
    *of_seeds(
        "auto", (50.0, 44.0, 40.0), (1e9, 2e9, 4e9),
        bleu=(21.0, 21.3, 22.5), chrf=(50.0, None, 51.0), train_minutes=(5.0, 5.0, 5.0),
        target_tokens=(1_000_000, 2_000_000, 6_000_000), p=(1 / 1001, 0.02, 0.3),
        flops_as_routed=(1e9, 2e9, 3e9), predicted_latency_ms=(40.0, 40.0, 43.0),
        tokenised_bleu=(None, 22.0, None),
    ),
]  # fmt: skip
SHUFFLED = [SEVERAL[i] for i in (0, 5, 3, 2, 4, 1)]


def test_a_line_a_system_has_means_and_spreads_over_seeds() -> None:
    # Of 21, 21.3, 22.5: mean 21.6, deviations -0.6, -0.3, 0.9, variance 1.26 / 2. Speed-ups 2, 2.5, 3;
    # FLOPs reductions 2, 1, 0.5, whose mean is no ratio of mean FLOPs (0.86).
    expected = (
        "| system | BLEU | p against dense | chrF | tokenised BLEU | predicted (ms) | latency (ms) "
        "| speed-up | GFLOPs | GFLOPs as routed | FLOPs reduction | target tokens (M) | training (min) |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| dense | 21.00 ± 1.00 | – | 50.00 | – | – | 110.0 ± 10.0 | 1.00× | 2 | – | 1.00× | 2.00 "
        "| 7.0 ± 1.0 |\n"
        "| auto | 21.60 ± 0.79 | 0.001, 0.02, 0.3 | 50.50 ± 0.71 | 22.00 | 41.0 ± 1.7 | 44.7 ± 5.0 "
        "| 2.50 ± 0.50× | 2.33 | 2 | 1.17× | 3.00 | 5.0 |\n"
    )
    assert tables.results_table(SEVERAL, "dense").markdown() == expected
    assert tables.results_table(SHUFFLED, "dense").markdown() == expected


def test_scores_of_a_part_of_the_test_set_say_so() -> None:
    results = [
        Result("a", 20.0, scored_pairs=1990, test_pairs=2000),
        Result("b", 21.0, scored_pairs=1990, test_pairs=2000),
    ]
    heading, _, *rows = tables.results_table(results, "a").markdown().splitlines()
    assert heading.startswith("| system | test pairs scored, of 2,000 | BLEU |")
    assert [row.split(" | ")[1] for row in rows] == ["1,990", "1,990"]
    assert "\na,1,1990,20.0," in tables.to_csv(results, "a")
    whole = [replace(result, scored_pairs=2000) for result in results]
    assert "scored" not in tables.results_table(whole, "a").markdown()


def test_csv_has_a_row_a_system_and_seed_that_make_the_means() -> None:
    text = tables.to_csv(SHUFFLED, "dense")
    frame = pandas.read_csv(io.StringIO(text))
    assert list(frame.columns[:3]) == ["system", "seed", "bleu"]
    assert frame.columns[-1] == "p"
    assert list(zip(frame["system"], frame["seed"], strict=True)) == [
        (result.system, result.seed) for result in SHUFFLED
    ]
    auto = frame.set_index(["system", "seed"]).loc["auto"].sort_index()
    assert auto["p"].tolist() == [1 / 1001, 0.02, 0.3]
    assert auto["speed_up"].tolist() == [2.0, 2.5, 3.0]
    assert auto["flops_reduction"].tolist() == [2.0, 1.0, 0.5]
    means, spreads = frame.groupby("system")["bleu"].mean(), frame.groupby("system")["bleu"].std()
    line = tables.results_table(SHUFFLED, "dense").markdown().splitlines()[-1]
    assert f"| auto | {means['auto']:.2f} ± {spreads['auto']:.2f} |" in line


def test_a_p_that_is_missing_is_a_dash_and_the_reference_has_none() -> None:
    rows = [
        Result("a|b", seed=1, p=1.0),
        Result("a|b", seed=2, p=1.0),
        Result("c", seed=2, p=0.04),
        Result("c", seed=1),
        Result("d", seed=1),
    ]
    lines = tables.results_table(rows, "a|b").markdown().splitlines()
    assert lines[0].startswith("| system | BLEU | p against a\\|b | chrF |")
    assert [line.split(" | ")[2] for line in lines[2:]] == ["–", "–, 0.04", "–"]
    assert "p against" not in tables.results_table(rows[:2], "a|b").markdown()
    assert pandas.read_csv(io.StringIO(tables.to_csv(rows, "a|b")))["p"].dropna().tolist() == [0.04]


def test_every_problem_of_the_rows_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        tables.results_table([*RESULTS, RESULTS[0]], "base")
    assert caught.value.problems == (
        "dense: 2 rows have seed 1, expected one; give each its own seed",
        "base: is the reference, but no row has this name (systems: dense, auto|moe)",
    )


@pytest.mark.parametrize("table", [tables.results_table, tables.to_csv])
def test_every_seed_without_the_reference_is_listed(table) -> None:
    rows = [Result("dense", seed=2), *(Result("auto", seed=seed) for seed in (3, 2, 1, 3)), Result("hat")]
    with pytest.raises(InputError) as caught:
        table(rows, "dense")
    assert caught.value.problems == (
        "auto: 2 rows have seed 3, expected one; give each its own seed",
        "dense: is the reference, but no row has this name and seed 1 (systems: auto, hat); "
        "add it, or leave this seed out",
        "dense: is the reference, but no row has this name and seed 3 (systems: auto); "
        "add it, or leave this seed out",
    )
