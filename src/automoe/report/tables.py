"""The table of results: Markdown to read, CSV to compute with."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from automoe.errors import InputError

MISSING = "–"


@dataclass(frozen=True, slots=True)
class Result:
    """One system's line; what was not measured is None.

    Args:
        system: its name, once a table.
        bleu, chrf, tokenised_bleu: 0 to 100, on the test set.
        predicted_latency_ms: what the search went by, for the systems it found.
        latency_ms: measured, by the papers' protocol.
        flops: of one sentence, by the published accounting, each expert of a layer equally likely.
        flops_as_routed: the same with the measured shares of the experts.
        parameters, active_parameters: without embeddings and output layer. `sparsity`: 0 to 1, the
            share of parameters that are not active.
        memory_bytes: weights and the peak of a translation. `train_minutes`: wall time of training.
    """

    system: str
    bleu: float | None = None
    chrf: float | None = None
    tokenised_bleu: float | None = None
    predicted_latency_ms: float | None = None
    latency_ms: float | None = None
    flops: float | None = None
    flops_as_routed: float | None = None
    parameters: float | None = None
    active_parameters: float | None = None
    sparsity: float | None = None
    memory_bytes: float | None = None
    train_minutes: float | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    heading: str
    text: Callable[[float], str]


def _giga(flops: float) -> str:
    return f"{flops / 1e9:.3g}"


_COLUMNS = {
    "bleu": _Column("BLEU", "{:.2f}".format),
    "chrf": _Column("chrF", "{:.2f}".format),
    "tokenised_bleu": _Column("tokenised BLEU", "{:.2f}".format),
    "predicted_latency_ms": _Column("predicted (ms)", "{:.1f}".format),
    "latency_ms": _Column("latency (ms)", "{:.1f}".format),
    "speed_up": _Column("speed-up", "{:.2f}×".format),
    "flops": _Column("GFLOPs", _giga),
    "flops_as_routed": _Column("GFLOPs as routed", _giga),
    "flops_reduction": _Column("FLOPs reduction", "{:.2f}×".format),
    "parameters": _Column("parameters (M)", lambda count: f"{count / 1e6:.2f}"),
    "active_parameters": _Column("active (M)", lambda count: f"{count / 1e6:.2f}"),
    "sparsity": _Column("sparsity", "{:.0%}".format),
    "memory_bytes": _Column("memory (MiB)", lambda size: f"{size / 2**20:.0f}"),
    "train_minutes": _Column("training (min)", "{:.1f}".format),
}


def to_markdown(results: Sequence[Result], reference: str) -> str:
    """The table in Markdown, rows in the order given, an en dash for what is missing.

    "Speed-up" is the latency of the system named `reference` over this one's, "FLOPs reduction" its
    FLOPs over this one's: above 1 is better than the reference, as in the papers' tables.

    Raises:
        InputError: no row is the reference, or two rows have the same name.
    """
    lines = [
        _line(["system", *(column.heading for column in _COLUMNS.values())]),
        _line(["---", *["---:"] * len(_COLUMNS)]),
    ]
    for row in _rows(results, reference):
        cells = [str(row["system"]).replace("|", "\\|")]
        for key, column in _COLUMNS.items():
            value = row[key]
            cells.append(MISSING if not isinstance(value, int | float) else column.text(value))
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def to_csv(results: Sequence[Result], reference: str) -> str:
    """The same table with full precision and units in the column names; what is missing is empty.

    Raises:
        InputError: as `to_markdown`.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, ["system", *_COLUMNS], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(results, reference))
    return file.getvalue()


def _rows(results: Sequence[Result], reference: str) -> list[dict[str, str | float | None]]:
    names = [result.system for result in results]
    problems = [f"{name}: {names.count(name)} rows have this name" for name in dict.fromkeys(names)
                if names.count(name) > 1]  # fmt: skip
    if reference not in names:
        problems.append(f"{reference}: is the reference, but no row has this name (rows: {', '.join(names)})")
    if problems:
        raise InputError("there is no table of these results", problems)
    base = results[names.index(reference)]
    rows = []
    for result in results:
        row = {field.name: getattr(result, field.name) for field in fields(Result)}
        row["speed_up"] = _ratio(base.latency_ms, result.latency_ms)
        row["flops_reduction"] = _ratio(base.flops, result.flops)
        rows.append(row)
    return rows


def _ratio(reference: float | None, value: float | None) -> float | None:
    return None if reference is None or value is None else reference / value


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
