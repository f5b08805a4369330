"""What to say of a latency that was measured on a busy machine."""

from __future__ import annotations

from automoe.cost.measure import MOST_RELATIVE_SPREAD, MOST_STOLEN_SHARE, Latency

MEND = (
    "stop other programs, or measure with fewer threads than the machine has cores, then measure again; "
    "more runs do not help while the machine is busy"
)


def why_noisy(*latencies: Latency) -> str | None:
    """One sentence with the reasons why these latencies should not be believed, and what to do.

    None when none of them is noisy. With several, the figures are those of the noisiest.
    """
    noisy = [latency for latency in latencies if latency.noisy]
    if not noisy:
        return None
    stolen = max((latency.stolen_share or 0.0) for latency in noisy)
    spread = max(latency.spread_ms / latency.latency_ms for latency in noisy)
    reasons = []
    if stolen > MOST_STOLEN_SHARE:
        reasons.append(
            f"other processes or virtual machines took {stolen:.0%} of the processor time it asked for "
            f"(believable: at most {MOST_STOLEN_SHARE:.0%})"
        )
    if spread > MOST_RELATIVE_SPREAD:
        reasons.append(
            f"the middle half of the runs spreads over {spread:.0%} of the figure "
            f"(believable: at most {MOST_RELATIVE_SPREAD:.0%})"
        )
    why = " and ".join(reasons) or "in most of its rounds, other work disturbed it"
    return f"the machine was too busy to believe this latency: {why}; {MEND}"
