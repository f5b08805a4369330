"""The results table, checked to the last character."""

import csv
import io

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
        1.2e9, 0.0, 6.5,
    ),
    Result(
        "auto|moe", bleu=13.456, predicted_latency_ms=49.04,
        costs={"latency_ms": 50.0, "flops": 0.8e9, "parameters": 5e6},
        flops_as_routed=0.7654e9, sparsity=0.6,
    ),
]
# fmt: on


def test_markdown_has_a_row_a_system_and_a_dash_for_what_is_unknown() -> None:
    assert tables.to_markdown(RESULTS, "dense") == (
        "| system | BLEU | chrF | tokenised BLEU | predicted (ms) | latency (ms) | speed-up | GFLOPs "
        "| GFLOPs as routed | FLOPs reduction "
        "| parameters (M) | active (M) | sparsity | memory (MiB) | training (min) |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: "
        "| ---: | ---: |\n"
        "| dense | 12.00 | 40.00 | 12.50 | 118.0 | 120.0 | 1.00× | 1.2 | 1.2 | 1.00× | 3.00 | 3.00 "
        "| 0% | 200 | 6.5 |\n"
        "| auto\\|moe | 13.46 | – | – | 49.0 | 50.0 | 2.40× | 0.8 | 0.765 | 1.50× | 5.00 | – | 60% "
        "| – | – |\n"
    )


def test_csv_keeps_every_digit_and_pandas_reads_what_is_missing() -> None:
    text = tables.to_csv(RESULTS, "dense")
    assert next(csv.reader(io.StringIO(text))) == [
        "system", "bleu", "chrf", "tokenised_bleu", "predicted_latency_ms", "latency_ms", "speed_up",
        "flops", "flops_as_routed", "flops_reduction", "parameters", "active_parameters", "sparsity",
        "memory_bytes", "train_minutes",
    ]  # fmt: skip
    frame = pandas.read_csv(io.StringIO(text)).set_index("system")
    row = frame.loc["auto|moe"]
    assert row["bleu"] == 13.456
    assert row["speed_up"] == pytest.approx(2.4)
    assert row["flops_reduction"] == pytest.approx(1.5)
    assert row.isna().to_dict() | {"chrf": True, "memory_bytes": True} == row.isna().to_dict()
    assert not frame.loc["dense"].isna().any()


def test_a_reference_without_latency_gives_no_speed_up() -> None:
    text = tables.to_csv([Result("dense"), RESULTS[1]], "dense")
    assert pandas.read_csv(io.StringIO(text))["speed_up"].isna().all()


def test_a_cost_has_a_column_where_a_row_has_it() -> None:
    with_throughput = Result("dense", costs={"latency_ms": 50.0, "throughput_sentences_s": 20.0})
    text = tables.to_markdown([with_throughput], "dense")
    assert "| latency (ms) | speed-up | sentences/s | training (min) |" in text
    assert "| 50.0 | 1.00× | 20.0 | – |" in text


def test_every_problem_of_the_rows_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        tables.to_markdown([*RESULTS, RESULTS[0]], "base")
    assert caught.value.problems == (
        "dense: 2 rows have this name",
        "base: is the reference, but no row has this name (rows: dense, auto|moe, dense)",
    )
