"""What the stages of a run could have left, made up: for tests of reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automoe.cost.counting import count
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.evaluation.significance import Significance
from automoe.report.asked import Asked
from automoe.report.run_report import write_report
from automoe.report.seed_report import SeedReport
from automoe.search.candidate import Candidate
from automoe.search.log import CandidateLog, LogEntry, SearchName

PROTOCOL = MeasuringProtocol(source_length=5, target_length=5, vocabulary_size=24, beam_size=2, norm="pre")
ASKED = Asked("made-up", {"Data": "9 pairs"}, "en", "de")


def made_up_result(
    architecture: Architecture, bleu: float = 1.0, loss: float = 3.0, shares: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A `result.json`."""
    return {
        "architecture": architecture.to_dict(),
        "scores": {
            "bleu": bleu,
            "chrf": 2.0,
            "tokenised_bleu": 1.0,
            "bleu_signature": "b",
            "chrf_signature": "c",
        },
        "test_pairs": {"kept": 3, "empty": 0, "too_long": 0, "unequal": 0, "cleaned": 0},
        "counts": {"sparsity": 0.0},
        "counts_as_routed": {"flops": 1.0},
        "routing_shares": shares or {},
        "training": {"target_tokens": 9, "seconds": 60.0, "validation": {"valid": loss}},
    }


def made_up_seed(
    results: Mapping[str, Mapping[str, Any]],
    latencies_ms: Mapping[str, float] | None = None,
    p: Mapping[tuple[str, str], float] | None = None,
    log: Path | None = None,
    candidates: Sequence[tuple[Architecture, float]] = (),
    measured: Mapping[str, Any] | None = None,
    noise: str | None = None,
    sentences: Sequence[Mapping[str, Any]] = (),
) -> SeedReport:
    """A seed's report; with `candidates` (and their scores) the first system was searched for.

    The log of the search, with the counted costs of its candidates and 1 ms a million FLOPs, is written to
    `log`. Every second candidate breaks a bound.
    """
    first = next(iter(results))
    searches, logs = {}, {}
    if candidates:
        assert log is not None
        journal = CandidateLog(log)
        for index, (architecture, score) in enumerate(candidates):
            counts = count(architecture, PROTOCOL)
            costs = {"flops": float(counts.flops), "latency_ms": counts.flops / 1e6}
            name = SearchName(first, "evolution", "whole")
            entry = LogEntry(name, 0, index, Candidate(architecture, costs, score), index % 2 == 0)
            journal.append(entry, durable=False)
        logs[first] = log
        found = {"architecture": results[first]["architecture"], "costs": {"latency_ms": 1.0}}
        finalists = [found | {"measured": measured}]
        searches[first] = {"finalists": finalists, "rejected": [], "continued": False, "seconds": 6.0}
    return SeedReport(
        results=results,
        latencies={
            name: {"latency_ms": (latencies_ms or {}).get(name, 1.0), "noise": noise} for name in results
        },
        searches=searches,
        logs=logs,
        races={},
        histories={},
        compared={pair: Significance(value, 0.5, "s") for pair, value in (p or {}).items()},
        sentences=sentences,
    )


def made_up_page(
    folder: Path, seeds: Mapping[int, SeedReport], asked: Asked = ASKED, reference: str | None = None
) -> str:
    """Write the report into `folder`; the text of its page. The first system is the main one."""
    first = next(iter(seeds.values()))
    main = next(iter(first.results))
    write_report(
        folder,
        seeds,
        asked=asked,
        reference=reference or main,
        main=main,
        score_label="validation loss",
        protocol=PROTOCOL,
    )
    return (folder / "report.html").read_text(encoding="utf-8")


def made_up_sentence(text: str, systems: Mapping[str, Architecture]) -> dict[str, Any]:
    """One sentence, with `text` for source, reference, translations and their only token."""

    def grid(architecture: Architecture, stack: Any) -> dict[str, Any]:
        layers = [
            {"name": layer.name, "experts": list(layer.feed_forward.ffn_sizes), "chosen": [[0]]}
            for layer in architecture.layers(stack)
        ]
        return {"tokens": [text], "layers": layers, "mean_ffn_sizes": [8.0]}

    outputs = {
        name: {
            "translation": text,
            "grids": {stack: grid(architecture, stack) for stack in ("encoder", "decoder")},
            "note": None,
        }
        for name, architecture in systems.items()
    }
    return json.loads(json.dumps({"source": text, "reference": text, "outputs": outputs}))
