"""The report of a run: the table, and every picture, from the artefacts of its stages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from automoe.cost.costs import COSTS, Conditions
from automoe.cost.device.profile import load_profile
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.errors import validate_plain
from automoe.report.architecture_drawing import draw
from automoe.report.latency_pictures import where_the_time_goes
from automoe.report.pictures import candidates as draw_candidates
from automoe.report.pictures import loss_curves
from automoe.report.tables import Result, to_csv, to_markdown
from automoe.search.candidate import front
from automoe.search.log import CandidateLog
from automoe.search.winner import Measured
from automoe.storage import write_text
from automoe.training.history import read_history


def write_report(
    folder: Path,
    *,
    results: Mapping[str, Mapping[str, Any]],
    latencies: Mapping[str, Mapping[str, Any]],
    chosen: Mapping[str, Mapping[str, Any]],
    candidate_log: Path,
    trainings: Mapping[str, Path],
    score_label: str,
    protocol: MeasuringProtocol,
    bounded: Collection[str] = (),
    profile: Path | None = None,
) -> None:
    """Write `results.md`, `results.csv` and the pictures into `folder`.

    Args:
        results: by system, the evaluation stage's `result.json`.
        latencies: by system, the fields of a `Latency` and `noise`, why it should not be believed.
        chosen: by searched system, what the search's `chosen.json` says of it.
        candidate_log: the search's `candidates.jsonl`.
        trainings: by name, the folders with a training history.
        score_label: what the search ranked by.
        protocol: under which costs are counted. `bounded`: the costs that the search had a bound on.
        profile: the device profile that priced the candidates, if one did: it also tells where time goes.
    """
    rows = [
        _row(system, result, latencies[system], chosen.get(system, {}), protocol, bounded)
        for system, result in results.items()
    ]
    reference = "dense" if "dense" in results else "automoe"
    notes = [
        "Ratios are against the row `" + reference + "`. Parameters and FLOPs by the papers' accounting "
        "(without embeddings and output layer; one sentence), for experts equally likely; "
        '"GFLOPs as routed" is with the shares of tokens that the experts got on the test set.',
        f"BLEU: {results[reference]['scores']['bleu_signature']}",
        f"chrF: {results[reference]['scores']['chrf_signature']}",
        *(budget_note(system, found) for system, found in chosen.items() if "measured" in found),
        *(f"{system}: {latency['noise']}." for system, latency in latencies.items() if latency["noise"]),
    ]
    text = to_markdown(rows, reference) + "\n" + "\n".join(f"- {note}" for note in notes) + "\n"
    write_text(folder / "results.md", text)
    write_text(folder / "results.csv", to_csv(rows, reference))

    histories = {name: read_history(path) for name, path in trainings.items()}
    loss_curves({name: records for name, records in histories.items() if records}, folder / "loss_curves.png")
    winner = results["automoe"]
    draw(
        Architecture.from_dict(winner["architecture"]),
        folder / "architecture.png",
        "The architecture found",
        winner["routing_shares"] or None,
    )
    if profile is not None:
        parts = load_profile(profile).predict(Architecture.from_dict(winner["architecture"]))
        subject = "a sentence" if protocol.batch == 1 else f"a batch of {protocol.batch} sentences"
        where_the_time_goes(parts, folder / "where_the_time_goes.png", subject)
    entries = CandidateLog(candidate_log).entries
    known = {entry.candidate.architecture: entry.candidate for entry in entries}
    winner_candidate = known[Architecture.from_dict(winner["architecture"])]
    others = {
        system: known[architecture]
        for system in chosen
        if system != "automoe"
        and system in results
        and (architecture := Architecture.from_dict(results[system]["architecture"])) in known
    }
    scored = [entry.candidate for entry in entries if entry.feasible]
    for cost in COSTS.values():
        # Without a bound on the latency, no candidate's is known.
        if cost.name in winner_candidate.costs and cost.name in ("latency_ms", "flops", *bounded):
            path = folder / f"front_{cost.name}.png"
            best = front(scored, cost.name, larger_is_better=cost.larger_is_better)
            draw_candidates(entries, cost.name, path, best, winner_candidate, others, score_label)


def _row(
    system: str,
    result: Mapping[str, Any],
    latency: Mapping[str, Any],
    found: Mapping[str, Any],
    protocol: MeasuringProtocol,
    bounded: Collection[str],
) -> Result:
    scores, architecture = result["scores"], Architecture.from_dict(result["architecture"])
    conditions = Conditions(protocol, lambda _: latency["latency_ms"])
    shown = [c for c in COSTS.values() if not c.measured or c.name in ("latency_ms", *bounded)]
    return Result(
        system=system,
        bleu=scores["bleu"],
        chrf=scores["chrf"],
        tokenised_bleu=scores["tokenised_bleu"],
        predicted_latency_ms=found.get("predicted_latency_ms"),
        costs={cost.name: cost.price(architecture, conditions) for cost in shown},
        flops_as_routed=result["counts_as_routed"]["flops"],
        sparsity=result["counts"]["sparsity"],
        train_minutes=result["training"]["seconds"] / 60,
    )


def budget_note(system: str, found: Mapping[str, Any]) -> str:
    """How the search's choice stood against its bounds on measured costs."""
    measured = validate_plain(Measured, found["measured"], f"{system}: what was measured of it is damaged")
    rejected, others = len(found["rejected"]), measured.bounded_beside_latency
    text = (
        f"{system}: at the end of the search, {found['predicted_latency_ms']:.1f} ms were predicted, "
        f"{measured.latency_ms:.1f} measured"
    )
    if not measured.judged:
        text += " here, which is not the device of the budget"
    if measured.maximum_ms is not None:
        text += f", {measured.maximum_ms:.1f} allowed"
    if others:
        text += f"; the bound on {', '.join(others)} is kept"
    if rejected:
        text += f"; {rejected} with a better score broke the budget when measured"
    return f"{text}; {measured.noise}." if measured.noise else f"{text}."
