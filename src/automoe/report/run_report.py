"""The report of a run: the table, and every picture, from the artefacts of its stages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from automoe.cost.costs import COSTS, Conditions
from automoe.cost.device.profile import load_profile
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import LoadReport
from automoe.design.architecture import Architecture, Expert
from automoe.errors import validate_plain
from automoe.evaluation.significance import Significance
from automoe.report.analyses import analyses_markdown, draw_expert_counts, encoder_share, expert_counts
from automoe.report.architecture_drawing import draw
from automoe.report.latency_pictures import where_the_time_goes
from automoe.report.pictures import candidates as draw_candidates
from automoe.report.pictures import loss_curves
from automoe.report.race_picture import draw_race
from automoe.report.tables import Result, to_csv, to_markdown
from automoe.search.candidate import Candidate, front, score_of
from automoe.search.log import CandidateLog, LogEntry
from automoe.search.winner import Measured
from automoe.storage import write_text
from automoe.training.history import read_history

BEST_CANDIDATES = 20
"""Of a search, whose experts are counted (the paper's Figure 3)."""

CAPACITY_NATS = 0.05
"""By how much the largest FFNs must beat the smallest for a regime in which experts can matter."""


@dataclass(frozen=True)
class SeedReport:
    """What the stages of one seed left, by system.

    Attributes:
        results: the evaluation's `result.json`. `latencies`: the fields of a `Latency`, and `noise`, why it
            should not be believed.
        searches: the searches' `chosen.json`. `logs`: their `candidates.jsonl`. `races`: the finals'
            `race.json`.
        histories: by name, the folders with a training history.
        compared: by (one system, another), whether the other's translations are better.
        supernet_seconds: of its training, if there is one.
    """

    results: Mapping[str, Mapping[str, Any]]
    latencies: Mapping[str, Mapping[str, Any]]
    searches: Mapping[str, Mapping[str, Any]]
    logs: Mapping[str, Path]
    races: Mapping[str, Mapping[str, Any]]
    histories: Mapping[str, Path]
    compared: Mapping[tuple[str, str], Significance]
    supernet_seconds: float | None = None


def write_report(
    folder: Path,
    seeds: Mapping[int, SeedReport],
    *,
    reference: str,
    main: str,
    score_label: str,
    protocol: MeasuringProtocol,
    bounded: Collection[str] = (),
    corpora: Mapping[str, str] | None = None,
    profile: Path | None = None,
) -> None:
    """Write `results.md` and `results.csv` into `folder`, and the pictures of each seed into `seed-N` there.

    Args:
        seeds: what was found with each seed.
        reference: the system that ratios are against. `main`: the system whose architecture is drawn.
        score_label: what the search ranked by.
        protocol: under which costs are counted. `bounded`: the costs that a search had a bound on.
        corpora: by split, how many pairs were used, and how many were dropped and why.
        profile: the device profile that priced the candidates, if one did: it also tells where time goes.
    """
    rows = [
        _row(seed, system, report, reference, protocol, bounded)
        for seed, report in seeds.items()
        for system in report.results
    ]
    first = next(iter(seeds.values()))
    scores = first.results[reference]["scores"]
    notes = [
        f"Ratios are against the row `{reference}`. Parameters and FLOPs by the papers' accounting (without "
        'embeddings and output layer; one sentence), for experts equally likely; "GFLOPs as routed" is with '
        "the shares of tokens that the experts got on the test set.",
        f"BLEU: {scores['bleu_signature']}",
        f"chrF: {scores['chrf_signature']}",
    ]
    notes += [f"{split}: {told}." for split, told in (corpora or {}).items()]
    notes += [f"p: {tested.signature}" for tested in list(first.compared.values())[:1]]
    for seed, report in seeds.items():
        told = [*_notes(report), *_comparisons(report, reference), *_capacity(report)]
        notes += [f"seed {seed}: {note}" if len(seeds) > 1 else note for note in told]
    text = to_markdown(rows, reference) + "\n" + "".join(f"- {note}\n" for note in notes)
    write_text(folder / "results.md", text + "\n" + _analyses(seeds, protocol, profile))
    write_text(folder / "results.csv", to_csv(rows, reference))
    for seed, report in seeds.items():
        _draw_seed(folder / f"seed-{seed}", report, main, score_label, protocol, bounded, profile)


def _row(
    seed: int,
    system: str,
    report: SeedReport,
    reference: str,
    protocol: MeasuringProtocol,
    bounded: Collection[str],
) -> Result:
    result, latency = report.results[system], report.latencies[system]
    scores, architecture = result["scores"], _architecture(result)
    conditions = Conditions(protocol, lambda _: latency["latency_ms"])
    shown = [c for c in COSTS.values() if not c.measured or c.name in ("latency_ms", *bounded)]
    significance = report.compared.get((reference, system))
    return Result(
        system=system,
        seed=seed,
        scored_pairs=result["test_pairs"]["kept"],
        test_pairs=LoadReport(**result["test_pairs"]).read,
        bleu=scores["bleu"],
        chrf=scores["chrf"],
        tokenised_bleu=scores["tokenised_bleu"],
        p=significance.p if significance else None,
        predicted_latency_ms=_found(report, system, architecture).get("costs", {}).get("latency_ms"),
        costs={cost.name: cost.price(architecture, conditions) for cost in shown},
        flops_as_routed=result["counts_as_routed"]["flops"],
        sparsity=result["counts"]["sparsity"],
        target_tokens=result["training"]["target_tokens"],
        train_minutes=result["training"]["seconds"] / 60,
    )


def _found(report: SeedReport, system: str, architecture: Architecture) -> Mapping[str, Any]:
    """What the search said of the architecture that won."""
    finalists = report.searches.get(system, {}).get("finalists", ())
    return next((f for f in finalists if _architecture(f) == architecture), {})


def _architecture(plain: Mapping[str, Any]) -> Architecture:
    return Architecture.from_dict(plain["architecture"])


def _notes(report: SeedReport) -> Iterator[str]:
    """What the searches, the races and the latencies say."""
    for system, chosen in report.searches.items():
        found = _found(report, system, _architecture(report.results[system]))
        if found.get("measured"):
            yield budget_note(system, found, len(chosen["rejected"]))
    for system, race in report.races.items():
        yield race_note(system, race)
    for system, latency in report.latencies.items():
        if latency["noise"]:
            yield f"{system}: {latency['noise']}."


def race_note(system: str, race: Mapping[str, Any]) -> str:
    """What the finals of a system changed, and what they cost.

    "Saved" is against training every finalist to the end.
    """
    winner, judged = race["finalists"].index(race["winner"]), race["judged"]
    last = max(j["step"] for j in judged if j["finalist"] == winner)
    losses = {j["finalist"]: j["loss"] for j in judged if j["step"] == last and j["loss"] is not None}
    others = sorted(loss for finalist, loss in losses.items() if finalist != winner)
    whole = len(race["finalists"]) - 1
    price = race["lost_steps"] / race["steps"]
    text = f"{system}: finals of {whole + 1}: the search's number {winner + 1} won"
    if others:
        text += f", {others[0] - losses[winner]:.3f} nats before the next"
    first = {j["finalist"]: j["loss"] for j in judged if j["finalist"] == 0 and j["loss"] is not None}
    if winner and first:
        step = max(j["step"] for j in judged if j["finalist"] == 0 and j["loss"] is not None)
        own = next(j["loss"] for j in judged if j["finalist"] == winner and j["step"] == step)
        text += f" (the search's first was {first[0] - own:.3f} behind it at step {step:,})"
    return f"{text}; the others took {price:.2f} trainings, {whole - price:.1f} less than to train them all."


def _comparisons(report: SeedReport, reference: str) -> Iterator[str]:
    """Searches under the same constraints against each other."""
    for (other, system), found in report.compared.items():
        if other != reference:
            yield f"{system} against {other}: {found.bleu_difference:+.2f} BLEU, p = {found.p:.2g}."


def _capacity(report: SeedReport) -> Iterator[str]:
    """Whether FFNs matter in this regime, where two of the dense systems differ in their sizes alone."""
    trained = {
        name: (_architecture(result), result["training"]["validation"]["valid"])
        for name, result in report.results.items()
        if "validation" in result["training"]
    }
    pairs = 0
    for name, (large, loss) in trained.items():
        for other, (small, worse) in trained.items():
            if not _differ_in_ffn_sizes_alone(small, large):
                continue
            pairs += 1
            gain = worse - loss
            verdict = "capacity matters here" if gain >= CAPACITY_NATS else "capacity does NOT matter here"
            yield (
                f"{verdict}: {name}, with larger FFNs than {other}, ends {gain:+.3f} nats better on "
                f"validation text; {CAPACITY_NATS} are asked for."
            )
    if report.searches and not pairs:
        yield (
            "whether capacity matters here was not checked: no two dense systems differ in their FFNs' sizes "
            "alone."
        )


def _differ_in_ffn_sizes_alone(small: Architecture, large: Architecture) -> bool:
    """Whether two dense architectures are alike but for larger FFNs in every layer of the second."""
    layers = [(*a.encoder, *a.decoder) for a in (small, large)]
    return (
        _with_small_ffns(small) == _with_small_ffns(large)
        and small.is_dense
        and large.is_dense
        and all(s.ffn_sizes[0] < b.ffn_sizes[0] for s, b in zip(*layers, strict=True))
    )


def _with_small_ffns(architecture: Architecture) -> Architecture:
    """The architecture with one expert of size 1 in every layer."""
    return replace(
        architecture,
        encoder=tuple(replace(layer, experts=(Expert(1),), top_k=1) for layer in architecture.encoder),
        decoder=tuple(replace(layer, experts=(Expert(1),), top_k=1) for layer in architecture.decoder),
    )


def _analyses(seeds: Mapping[int, SeedReport], protocol: MeasuringProtocol, profile: Path | None) -> str:
    """Shares of encoder and decoder with the first seed; minutes as a mean over the seeds."""
    first = next(iter(seeds.values()))
    load = load_profile(profile) if profile else None
    shares = {}
    for system, result in first.results.items():
        architecture = _architecture(result)
        parts = load.predict(architecture) if load and system in first.searches else None
        shares[system] = encoder_share(architecture, parts, protocol)
    minutes = [_minutes(report) for report in seeds.values()]
    names = dict.fromkeys(name for of_seed in minutes for name in of_seed)
    means = {name: fmean(m[name] for m in minutes if name in m) for name in names}
    return analyses_markdown(shares, means)


def _minutes(report: SeedReport) -> dict[str, float]:
    """What the run took, each training once."""
    seconds: dict[str, float] = {}
    if report.supernet_seconds is not None:
        seconds["supernet"] = report.supernet_seconds
    for name, chosen in report.searches.items():
        seconds[f"search {name}" + (", its last part" if chosen["continued"] else "")] = chosen["seconds"]
    for name, race in report.races.items():
        winner = race["finalists"].index(race["winner"])
        losers = {int(finalist): value for finalist, value in race["seconds"].items()}
        seconds[f"finals {name}, the losers"] = sum(v for finalist, v in losers.items() if finalist != winner)
    counted: set[Path | None] = set()
    for name, result in report.results.items():
        history = report.histories.get(name)
        if history is None or history not in counted:
            seconds[f"training {name}"] = result["training"]["seconds"]
        counted.add(history)
    return {name: value / 60 for name, value in seconds.items()}


def _draw_seed(
    folder: Path,
    report: SeedReport,
    main: str,
    score_label: str,
    protocol: MeasuringProtocol,
    bounded: Collection[str],
    profile: Path | None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    histories = {name: read_history(path) for name, path in report.histories.items()}
    loss_curves({name: records for name, records in histories.items() if records}, folder / "loss_curves.png")
    result = report.results[main]
    architecture = _architecture(result)
    draw(
        architecture,
        folder / "architecture.png",
        "The architecture found" if main in report.searches else f"The architecture of {main}",
        result["routing_shares"] or None,
    )
    if profile is not None:
        subject = "a sentence" if protocol.batch == 1 else f"a batch of {protocol.batch} sentences"
        parts = load_profile(profile).predict(architecture)
        where_the_time_goes(parts, folder / "where_the_time_goes.png", subject)
    for name, race in report.races.items():
        finalists = [Architecture.from_dict(plain) for plain in race["finalists"]]
        judged = [(str(j["finalist"] + 1), j["step"], j["loss"]) for j in race["judged"]]
        winner = str(race["finalists"].index(race["winner"]) + 1)
        dense = {str(place) for place, finalist in enumerate(finalists, start=1) if finalist.is_dense}
        draw_race(judged, winner, folder / f"race_{name}.png", dense)
    if report.logs:
        _draw_candidates(folder, report, main, score_label, bounded)


def _draw_candidates(
    folder: Path, report: SeedReport, main: str, score_label: str, bounded: Collection[str]
) -> None:
    logs = {name: CandidateLog(path).entries for name, path in report.logs.items()}
    entries = [entry for of_system in logs.values() for entry in of_system]
    known = {
        entry.candidate.architecture: entry.candidate
        for entry in entries
        if entry.candidate.score is not None
    }
    winners = {
        name: known[architecture]
        for name in logs
        if (architecture := _architecture(report.results[name])) in known
    }
    chosen = winners.pop(main)
    scored = [entry.candidate for entry in entries if entry.feasible and entry.candidate.score is not None]
    best = sorted(_scored(logs[main]), key=score_of)[:BEST_CANDIDATES]
    counts = expert_counts([candidate.architecture for candidate in best])
    draw_expert_counts(counts, folder / "experts_a_layer.png")
    for cost in COSTS.values():
        # Without a bound on the latency, no candidate's is known.
        if cost.name in chosen.costs and cost.name in ("latency_ms", "flops", *bounded):
            path = folder / f"front_{cost.name}.png"
            front_line = front(scored, cost.name, larger_is_better=cost.larger_is_better)
            draw_candidates(entries, cost.name, path, front_line, chosen, winners, score_label)


def _scored(entries: tuple[LogEntry, ...]) -> list[Candidate]:
    return [entry.candidate for entry in entries if entry.candidate.score is not None]


def budget_note(system: str, found: Mapping[str, Any], rejected: int = 0) -> str:
    """How a winner stood against its bounds on measured costs.

    Args:
        found: what `chosen.json` says of it. `rejected`: how many others broke the budget when measured.
    """
    predicted_ms = found["costs"]["latency_ms"]
    measured = validate_plain(Measured, found["measured"], f"{system}: what was measured of it is damaged")
    others = measured.bounded_beside_latency
    text = (
        f"{system}: at the end of the search, {predicted_ms:.1f} ms were predicted, "
        f"{measured.latency_ms:.1f} measured"
    )
    if not measured.judged:
        text += " here, which is not the device of the budget"
    if measured.maximum_ms is not None:
        text += f", {measured.maximum_ms:.1f} allowed"
    if others:
        text += f"; the bound on {', '.join(others)} is kept"
    if rejected:
        text += f"; {rejected} with a good score broke the budget when measured"
    return f"{text}; {measured.noise}." if measured.noise else f"{text}."
