"""The table of results over all seeds, to read; and CSV, to compute with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean, stdev
from typing import TypeAlias

from automoe.cost.costs import COSTS, THROUGHPUT
from automoe.errors import InputError

MISSING = "–"
_BAR = "\\|"  # a bar within a cell


@dataclass(frozen=True, slots=True)
class Result:
    """One system trained with one seed; what was not measured is None.

    Args:
        system: its name, with each seed once a table.
        bleu, chrf, tokenised_bleu: 0 to 100, on the test set.
        predicted_latency_ms: what the search went by, for the systems it found.
        costs: by name (`automoe.cost.costs.COSTS`): counted, each expert of a layer equally likely, and the
            measured latency.
        flops_as_routed: FLOPs with the measured shares of the experts.
        sparsity: 0 to 1, the share of parameters that are not active.
        train_minutes: wall time of training.
        seed: of its training and of whatever else was drawn for it.
        p: of the paired bootstrap against the reference's translations of the same seed
            (`automoe.evaluation.significance`); the reference itself has none.
        target_tokens: that it was trained on, each as often as it was seen.
        peak_memory_bytes: measured while a batch was translated, by a process of its own.
        scored_pairs: that the scores are of. `test_pairs`: of the whole test set.
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
    seed: int = field(default=1, kw_only=True)
    p: float | None = field(default=None, kw_only=True)
    target_tokens: int | None = field(default=None, kw_only=True)
    peak_memory_bytes: float | None = field(default=None, kw_only=True)
    scored_pairs: int | None = field(default=None, kw_only=True)
    test_pairs: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class _Column:
    """How the values of one kind are written.

    Args:
        digits: of a scaled value, as in `format`.
        scale: from the unit of the value to that of the heading.
        unit: what follows each cell's number.
        spread: the mean has the standard deviation over seeds beside it.
        each: there is no mean, but the value of every seed.
    """

    heading: str
    digits: str
    scale: float = 1.0
    unit: str = ""
    spread: bool = False
    each: bool = False


_BLEU = {"bleu": _Column("BLEU", ".2f", spread=True)}
_OTHER_SCORES = {
    "chrf": _Column("chrF", ".2f", spread=True),
    "tokenised_bleu": _Column("tokenised BLEU", ".2f", spread=True),
    "predicted_latency_ms": _Column("predicted (ms)", ".1f", spread=True),
}
# What stands behind the column of a cost.
_BESIDE = {
    "latency_ms": {"speed_up": _Column("speed-up", ".2f", unit="×", spread=True)},
    THROUGHPUT: {"throughput_gain": _Column("throughput gain", ".2f", unit="×", spread=True)},
    "flops": {
        "flops_as_routed": _Column("GFLOPs as routed", ".3g", COSTS["flops"].scale),
        "flops_reduction": _Column("FLOPs reduction", ".2f", unit="×"),
    },
    "active_parameters": {"sparsity": _Column("sparsity", ".0%")},
}
_PEAK_MEMORY = {
    "peak_memory_bytes": _Column("peak memory (MiB)", ".0f", COSTS["memory_bytes"].scale, spread=True)
}
_TRAINING = {
    "target_tokens": _Column("target tokens (M)", ".2f", 1e-6),
    "train_minutes": _Column("training (min)", ".1f", spread=True),
}


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows and columns; the first column names the rows, the others hold figures.

    Args:
        headings: of the columns. `rows`: each with as many cells.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """A line a row, the first column to the left and the others to the right."""
        rule = ("---", *["---:"] * (len(self.headings) - 1))
        lines = (self.headings, rule, *self.rows)
        return "".join(f"| {' | '.join(c.replace('|', _BAR) for c in cells)} |\n" for cells in lines)


_Rows: TypeAlias = Mapping[tuple[str, int], Mapping[str, float | None]]
"""By system and seed, every value by the key of its column, and `p`."""


def results_table(results: Sequence[Result], reference: str) -> Table:
    """The table, a row a system in the order given, an en dash for what is missing.

    "Speed-up" is the latency of the system named `reference` over this one's, "FLOPs reduction" its
    FLOPs over this one's, both with the same seed: above 1 is better than the reference, as in the
    papers' tables. "Throughput gain" is this one's throughput over the reference's. Of several seeds a value
    is the mean of those that have it; where these differ, scores, what is measured in time and ratios of it
    have their sample standard deviation behind a ±. There is a
    column of the p of every seed, in the order of the seeds, where any is given, and one of the pairs that
    scores are of, where that is not the whole test set.

    Raises:
        InputError: listing every system that has several rows with one seed, and every seed without a row
            of the reference.
    """
    rows = _rows(results, reference)
    columns = _columns(rows, reference)
    cells = []
    for system in dict.fromkeys(system for system, _ in rows):
        seeds = sorted(seed for name, seed in rows if name == system)
        values = {key: [rows[system, seed][key] for seed in seeds] for key in columns}
        cells.append((system, *(_cell(column, values[key]) for key, column in columns.items())))
    return Table(("system", *(column.heading for column in columns.values())), tuple(cells))


def to_csv(results: Sequence[Result], reference: str) -> str:
    """The same table, but a row a system and seed in the order given, with full precision.

    The names of its columns have units in them; what is missing is empty.

    Raises:
        InputError: as `results_table`.
    """
    rows = _rows(results, reference)
    values = [key for key in _columns(rows, reference) if key != "p"]
    file = io.StringIO()
    writer = csv.DictWriter(
        file, ["system", "seed", *values, "p"], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows({"system": system, "seed": seed, **row} for (system, seed), row in rows.items())
    return file.getvalue()


def _rows(results: Sequence[Result], reference: str) -> _Rows:
    """In the order given; InputError as `results_table`."""
    problems = _problems([(result.system, result.seed) for result in results], reference)
    if problems:
        raise InputError("there is no table of these results", problems)
    bases = {result.seed: result.costs for result in results if result.system == reference}
    rows = {}
    for result in results:
        base = bases[result.seed]
        row = {column.name: getattr(result, column.name) for column in fields(Result)}
        row |= dict.fromkeys(COSTS) | dict(result.costs)
        row["speed_up"] = _ratio(base.get("latency_ms"), result.costs.get("latency_ms"))
        row["throughput_gain"] = _ratio(result.costs.get(THROUGHPUT), base.get(THROUGHPUT))
        row["flops_reduction"] = _ratio(base.get("flops"), result.costs.get("flops"))
        row["p"] = None if result.system == reference else result.p
        rows[result.system, result.seed] = row
    return rows


def _problems(rows: Sequence[tuple[str, int]], reference: str) -> list[str]:
    problems = [
        f"{system}: {rows.count((system, seed))} rows have seed {seed}, expected one; give each its own seed"
        for system, seed in dict.fromkeys(rows)
        if rows.count((system, seed)) > 1
    ]
    systems = list(dict.fromkeys(system for system, _ in rows))
    if reference not in systems:
        return [
            *problems,
            f"{reference}: is the reference, but no row has this name (systems: {', '.join(systems)})",
        ]
    for seed in sorted({seed for _, seed in rows} - {seed for system, seed in rows if system == reference}):
        others = ", ".join(system for system in systems if (system, seed) in rows)
        problems.append(
            f"{reference}: is the reference, but no row has this name and seed {seed} "
            f"(systems: {others}); add it, or leave this seed out"
        )
    return problems


def _columns(rows: _Rows, reference: str) -> dict[str, _Column]:
    """Every column by key: p and the costs only where any row has them, costs in the order of their table.

    The number of scored pairs only where a score is of a part of the test set.
    """

    def known(key: str) -> bool:
        return any(row[key] is not None for row in rows.values())

    p = {"p": _Column(f"p against {reference}", ".2g", each=True)} if known("p") else {}
    parts = [row["test_pairs"] for row in rows.values() if row["scored_pairs"] != row["test_pairs"]]
    subset = {"scored_pairs": _Column(f"test pairs scored, of {parts[0]:,}", ",.0f")} if parts else {}
    columns = subset | _BLEU | p | _OTHER_SCORES
    for cost in COSTS.values():
        if known(cost.name):
            columns[cost.name] = _Column(cost.heading, cost.digits, cost.scale, spread=cost.measured)
            columns |= _BESIDE.get(cost.name, {})
        if cost.name == "memory_bytes" and known("peak_memory_bytes"):
            columns |= _PEAK_MEMORY
    return columns | _TRAINING


def _cell(column: _Column, values: Sequence[float | None]) -> str:
    """The text for the values of a system, one a seed."""
    known = [value * column.scale for value in values if value is not None]
    if not known:
        return MISSING
    if column.each:
        return ", ".join(MISSING if value is None else format(value, column.digits) for value in values)
    text = format(fmean(known), column.digits)
    if column.spread and len(set(known)) > 1:
        text += f" ± {stdev(known):{column.digits}}"
    return text + column.unit


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below
