"""The table of results: Markdown to read, CSV to compute with."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial

from automoe.cost.costs import COSTS, Cost
from automoe.errors import InputError

MISSING = "–"


@dataclass(frozen=True, slots=True)
class Result:
    """One system's line; what was not measured is None.

    Args:
        system: its name, once a table.
        bleu, chrf, tokenised_bleu: 0 to 100, on the test set.
        predicted_latency_ms: what the search went by, for the systems it found.
        costs: by name (`automoe.cost.costs.COSTS`): counted, each expert of a layer equally likely, and the
            measured latency.
        flops_as_routed: FLOPs with the measured shares of the experts.
        sparsity: 0 to 1, the share of parameters that are not active.
        train_minutes: wall time of training.
    """

    system: str
    bleu: float | None = None
    chrf: float | None = None
    tokenised_bleu: float | None = None
    predicted_latency_ms: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    flops_as_routed: float | None = None
    sparsity: float | None = None
    train_minutes: float | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    heading: str
    text: Callable[[float], str]


_SCORES = {
    "bleu": _Column("BLEU", "{:.2f}".format),
    "chrf": _Column("chrF", "{:.2f}".format),
    "tokenised_bleu": _Column("tokenised BLEU", "{:.2f}".format),
    "predicted_latency_ms": _Column("predicted (ms)", "{:.1f}".format),
}
# What stands behind the column of a cost.
_BESIDE = {
    "latency_ms": {"speed_up": _Column("speed-up", "{:.2f}×".format)},
    "flops": {
        "flops_as_routed": _Column("GFLOPs as routed", lambda flops: f"{flops / 1e9:.3g}"),
        "flops_reduction": _Column("FLOPs reduction", "{:.2f}×".format),
    },
    "active_parameters": {"sparsity": _Column("sparsity", "{:.0%}".format)},
}
_TRAINING = {"train_minutes": _Column("training (min)", "{:.1f}".format)}


def _columns(results: Sequence[Result]) -> dict[str, _Column]:
    """Every column by key: of costs, those that any row has, in the order of their table."""
    columns = dict(_SCORES)
    for cost in COSTS.values():
        if any(cost.name in result.costs for result in results):
            columns[cost.name] = _Column(cost.heading, partial(_scaled, cost))
            columns |= _BESIDE.get(cost.name, {})
    return columns | _TRAINING


def _scaled(cost: Cost, value: float) -> str:
    return format(value * cost.scale, cost.digits)


def to_markdown(results: Sequence[Result], reference: str) -> str:
    """The table in Markdown, rows in the order given, an en dash for what is missing.

    "Speed-up" is the latency of the system named `reference` over this one's, "FLOPs reduction" its
    FLOPs over this one's: above 1 is better than the reference, as in the papers' tables.

    Raises:
        InputError: no row is the reference, or two rows have the same name.
    """
    columns = _columns(results)
    lines = [
        _line(["system", *(column.heading for column in columns.values())]),
        _line(["---", *["---:"] * len(columns)]),
    ]
    for row in _rows(results, reference):
        cells = [str(row["system"]).replace("|", "\\|")]
        for key, column in columns.items():
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
    writer = csv.DictWriter(file, ["system", *_columns(results)], extrasaction="ignore", lineterminator="\n")
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
        row = {column.name: getattr(result, column.name) for column in fields(Result)}
        row |= dict.fromkeys(COSTS) | dict(result.costs)
        row["speed_up"] = _ratio(base.costs.get("latency_ms"), result.costs.get("latency_ms"))
        row["flops_reduction"] = _ratio(base.costs.get("flops"), result.costs.get("flops"))
        rows.append(row)
    return rows


def _ratio(reference: float | None, value: float | None) -> float | None:
    return None if reference is None or value is None else reference / value


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
