"""What a run did not reach, or did not show: a report says it before others have to ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from automoe.cost.costs import COSTS
from automoe.errors import validate_plain
from automoe.report.asked import Asked
from automoe.report.notes import capacity
from automoe.report.seed_report import SeedReport
from automoe.report.tables import Result
from automoe.search.winner import Measured

SIGNIFICANT_P = 0.05
"""A larger p does not tell two systems apart."""


def shortfalls(report: SeedReport, rows: Mapping[str, Result], reference: str, asked: Asked) -> Iterator[str]:
    """What fell short with one seed: broken budgets, no significance, no use of capacity, noise.

    Args:
        rows: of the table, by system. `reference`: the system that the others are compared with.
    """
    yield from _broken_budgets(report, rows, reference, asked)
    for (other, system), compared in report.compared.items():
        if compared.p > SIGNIFICANT_P:
            yield (
                f"{system} does not differ significantly from {other}: {compared.bleu_difference:+.2f} BLEU, "
                f"p = {compared.p:.2g}; the choice of test sentences may explain it."
            )
    yield from (text for matters, text in capacity(report) if not matters)
    for system, latency in report.latencies.items():
        if latency["noise"]:
            yield f"{system}: {latency['noise']}."
    for system, throughput in report.throughputs.items():
        if throughput["noise"]:
            yield f"{system}, throughput: {throughput['noise']}."


def _broken_budgets(
    report: SeedReport, rows: Mapping[str, Result], reference: str, asked: Asked
) -> Iterator[str]:
    """Bounds that a trained system breaks, as it was counted or measured beside the others at the end.

    A bound that is a share is of what the reference was measured to cost at the same time.
    """
    for system, constraints in asked.budgets.items():
        measured = report.found(system).get("measured")
        summary = f"{system}: what was measured of it is damaged"
        elsewhere = measured is not None and not validate_plain(Measured, measured, summary).judged
        for constraint in constraints:
            cost, of = COSTS[constraint.cost], ""
            if cost.measured and elsewhere:
                continue
            share = asked.shares.get(system, {}).get(cost.name)
            if cost.measured and share is not None:
                constraint = replace(constraint, bound=share * rows[reference].costs[cost.name])
                of = f" ({100 * share:.4g}% of what {reference} has)"
            if not constraint.holds(rows[system].costs):
                has, bound = rows[system].costs[cost.name] * cost.scale, constraint.bound * cost.scale
                limit = "at least" if constraint.at_least else "at most"
                yield (
                    f"{system} breaks its budget: {cost.heading} {has:{cost.digits}}, {limit} "
                    f"{bound:{cost.digits}}{of} was asked for."
                )
