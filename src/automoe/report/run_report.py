"""The report of a run: the table, every picture, and the page, from the artefacts of its stages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from automoe.cost.costs import COSTS, THROUGHPUT, Conditions, Together
from automoe.cost.device.profile import load_profile
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import LoadReport
from automoe.design.architecture import Architecture
from automoe.report.analyses import (
    EncoderShare,
    analyses_markdown,
    draw_expert_counts,
    encoder_share,
    expert_counts,
    minutes_table,
    stacks_table,
)
from automoe.report.architecture_drawing import draw
from automoe.report.asked import Asked
from automoe.report.headline import headline
from automoe.report.latency_pictures import where_the_time_goes
from automoe.report.notes import findings
from automoe.report.pictures import candidates as draw_candidates
from automoe.report.pictures import loss_curves
from automoe.report.race_picture import draw_race
from automoe.report.report_page import Page, SeedPart, write_page
from automoe.report.search_front import SearchFront, search_front
from automoe.report.seed_report import SeedReport
from automoe.report.shortfalls import shortfalls
from automoe.report.tables import Result, results_table, to_csv
from automoe.search.candidate import Candidate, score_of
from automoe.search.log import LogEntry
from automoe.storage import write_text
from automoe.training.history import read_history

BEST_CANDIDATES = 20
"""Of a search, whose experts are counted (the paper's Figure 3)."""


def write_report(
    folder: Path,
    seeds: Mapping[int, SeedReport],
    *,
    asked: Asked,
    reference: str,
    main: str,
    score_label: str,
    protocol: MeasuringProtocol,
    sought: Collection[str] = (),
    profile: Path | None = None,
) -> None:
    """Write `results.md`, `results.csv`, `report.html`, and the pictures of each seed into `seed-N`.

    Args:
        folder: where to.
        seeds: what was found with each seed.
        asked: what the run was asked for.
        reference: the system that ratios are against. `main`: the system whose architecture is drawn.
        score_label: what the search ranked by.
        protocol: under which costs are counted. `sought`: costs that a search had a bound on, or
            among its objectives.
        profile: the device profile that priced the candidates, if one did: it also tells where time goes.
    """
    rows = {
        seed: {system: _row(seed, system, report, protocol, reference, sought) for system in report.results}
        for seed, report in seeds.items()
    }
    all_rows = [row for of_seed in rows.values() for row in of_seed.values()]
    notes, short = _notes(seeds, reference), _shortfalls(seeds, rows, reference, asked)
    table = results_table(all_rows, reference)
    shares, minutes = _shares(seeds, protocol, profile), _minutes(seeds)
    told = [_listed(notes), f"### What fell short\n\n{_listed(short)}" if short else ""]
    told.append(analyses_markdown(shares, minutes))
    write_text(folder / "results.md", "\n".join([table.markdown(), *filter(None, told)]))
    write_text(folder / "results.csv", to_csv(all_rows, reference))
    subject = "a sentence" if protocol.batch == 1 else f"a batch of {protocol.batch} sentences"
    parts = {}
    for seed, report in seeds.items():
        pictures = folder / f"seed-{seed}"
        pictures.mkdir(parents=True, exist_ok=True)
        found = search_front(report, main, sought) if report.logs else None
        _draw_seed(pictures, report, main, subject, profile)
        if found:
            _draw_candidates(pictures, found, main, score_label)
        parts[seed] = SeedPart(report, found, pictures)
    page = Page(
        asked=asked,
        headline=headline(all_rows, main, reference, subject),
        main=main,
        score_label=score_label,
        results=table,
        notes=notes,
        shortfalls=short,
        stacks=stacks_table(shares),
        minutes=minutes_table(minutes),
        seeds=parts,
    )
    write_page(folder / "report.html", page)


def _row(
    seed: int,
    system: str,
    report: SeedReport,
    protocol: MeasuringProtocol,
    reference: str,
    sought: Collection[str],
) -> Result:
    result, latency = report.results[system], report.latencies[system]
    scores, architecture = result["scores"], report.architecture(system)
    batch = report.throughputs.get(system)
    together = Together(batch["batch"], lambda _: batch["latency_ms"]) if batch else None
    conditions = Conditions(protocol, lambda _: latency["latency_ms"], together)
    measured = {"latency_ms", *sought, *([THROUGHPUT] if batch else [])}
    shown = [c for c in COSTS.values() if not c.measured or c.name in measured]
    significance = report.compared.get((reference, system))
    return Result(
        system=system,
        seed=seed,
        scored_pairs=result["test_pairs"]["kept"],
        test_pairs=LoadReport.from_plain(result["test_pairs"]).read,
        bleu=scores["bleu"],
        chrf=scores["chrf"],
        tokenised_bleu=scores["tokenised_bleu"],
        p=significance.p if significance else None,
        predicted_latency_ms=report.found(system).get("costs", {}).get("latency_ms"),
        costs={cost.name: cost.price(architecture, conditions) for cost in shown},
        flops_as_routed=result["counts_as_routed"]["flops"],
        sparsity=result["counts"]["sparsity"],
        peak_memory_bytes=latency.get("peak_memory_bytes"),
        target_tokens=result["training"]["target_tokens"],
        train_minutes=result["training"]["seconds"] / 60,
    )


def _notes(seeds: Mapping[int, SeedReport], reference: str) -> list[str]:
    """How the table is to be read, and what was found beside it."""
    first = next(iter(seeds.values()))
    scores = first.results[reference]["scores"]
    notes = [
        f"Ratios are against {reference}. Parameters and FLOPs by the papers' accounting (without "
        'embeddings and output layer; one sentence), for experts equally likely; "GFLOPs as routed" is with '
        "the shares of tokens that the experts got on the test set.",
        f"BLEU: {scores['bleu_signature']}",
        f"chrF: {scores['chrf_signature']}",
    ]
    notes += [f"p: {tested.signature}" for tested in list(first.compared.values())[:1]]
    if any("peak_memory_bytes" in latency for latency in first.latencies.values()):
        notes.append(
            "Memory is counted: float32 weights and the values alive in a translation. Peak memory is "
            "measured: what a process needs to translate, beyond interpreter and libraries."
        )
    batches = {record["batch"] for record in first.throughputs.values()}
    notes += [f"Sentences/s: of batches of {batch}, one after another." for batch in batches]
    return notes + _of_seeds({seed: findings(report, reference) for seed, report in seeds.items()})


def _shortfalls(
    seeds: Mapping[int, SeedReport],
    rows: Mapping[int, Mapping[str, Result]],
    reference: str,
    asked: Asked,
) -> list[str]:
    told = _of_seeds(
        {seed: shortfalls(report, rows[seed], reference, asked) for seed, report in seeds.items()}
    )
    one = ["one seed: how differently another training would end is not known."] if len(seeds) == 1 else []
    return [*told, *asked.dropped, *one]


def _of_seeds(told: Mapping[int, Iterable[str]]) -> list[str]:
    """What is told of each seed; which seed it is of, where there are several."""
    return [
        f"seed {seed}: {text}" if len(told) > 1 else text for seed, texts in told.items() for text in texts
    ]


def _listed(texts: Sequence[str]) -> str:
    return "".join(f"- {text}\n" for text in texts)


def _shares(
    seeds: Mapping[int, SeedReport], protocol: MeasuringProtocol, profile: Path | None
) -> dict[str, EncoderShare]:
    """Of encoder and decoder, with the first seed."""
    first = next(iter(seeds.values()))
    load = load_profile(profile) if profile else None
    shares = {}
    for system in first.results:
        architecture = first.architecture(system)
        parts = load.predict(architecture) if load and system in first.searches else None
        shares[system] = encoder_share(architecture, parts, protocol)
    return shares


def _minutes(seeds: Mapping[int, SeedReport]) -> dict[str, float]:
    """What a run takes, as a mean over the seeds."""
    minutes = [_minutes_of_seed(report) for report in seeds.values()]
    names = dict.fromkeys(name for of_seed in minutes for name in of_seed)
    return {name: fmean(m[name] for m in minutes if name in m) for name in names}


def _minutes_of_seed(report: SeedReport) -> dict[str, float]:
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
    if report.distilling_seconds is not None:
        seconds["distillation, the teacher's translations"] = report.distilling_seconds
    counted: set[Path | None] = set()
    for name, result in report.results.items():
        history = report.histories.get(name)
        if history is None or history not in counted:
            seconds[f"training {name}"] = result["training"]["seconds"]
        counted.add(history)
    return {name: value / 60 for name, value in seconds.items()}


def _draw_seed(folder: Path, report: SeedReport, main: str, subject: str, profile: Path | None) -> None:
    histories = {name: read_history(path) for name, path in report.histories.items()}
    if histories := {name: records for name, records in histories.items() if records}:
        loss_curves(histories, folder / "loss_curves.png")
    architecture = report.architecture(main)
    draw(
        architecture,
        folder / "architecture.png",
        "The architecture found" if main in report.searches else f"The architecture of {main}",
        report.results[main]["routing_shares"] or None,
    )
    if profile is not None:
        parts = load_profile(profile).predict(architecture)
        where_the_time_goes(parts, folder / "where_the_time_goes.png", subject)
    for name, race in report.races.items():
        finalists = [Architecture.from_dict(plain) for plain in race["finalists"]]
        judged = [(str(j["finalist"] + 1), j["step"], j["loss"]) for j in race["judged"]]
        winner = str(race["finalists"].index(race["winner"]) + 1)
        dense = {str(place) for place, finalist in enumerate(finalists, start=1) if finalist.is_dense}
        draw_race(judged, winner, folder / f"race_{name}.png", dense)


def _draw_candidates(folder: Path, found: SearchFront, main: str, score_label: str) -> None:
    best = sorted(_scored(found.logs[main]), key=score_of)[:BEST_CANDIDATES]
    counts = expert_counts([candidate.architecture for candidate in best])
    draw_expert_counts(counts, folder / "experts_a_layer.png")
    others = {name: candidate for name, candidate in found.winners.items() if name != main}
    for cost in found.costs:
        draw_candidates(
            found.entries,
            cost.name,
            folder / f"front_{cost.name}.png",
            found.front(cost),
            found.winners[main],
            others,
            score_label,
        )


def _scored(entries: tuple[LogEntry, ...]) -> list[Candidate]:
    return [entry.candidate for entry in entries if entry.candidate.score is not None]
