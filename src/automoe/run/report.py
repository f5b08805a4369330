"""The stage that makes the report, and tells each model's card what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automoe.inference.model_folder import add_to_card
from automoe.report.run_report import write_report
from automoe.run.context import Run
from automoe.run.folder import Stage, read_stage_json


def report_run(
    run: Run,
    *,
    supernet: Stage,
    search: Stage,
    trained: Mapping[str, Stage],
    evaluated: Mapping[str, Stage],
    latency: Stage,
    latency_file: Path | None,
) -> Stage:
    """The table and the pictures, of the systems in `evaluated`.

    Args:
        trained: of those, where each was trained, and of the ones whose loss curves are drawn.
        latency_file: what priced the candidates, if a file did.
    """
    recipe = run.recipe

    def work(folder: Path) -> None:
        results = {name: read_stage_json(stage.folder / "result.json") for name, stage in evaluated.items()}
        latencies = read_stage_json(latency.folder / "latency.json")
        for name, stage in trained.items():
            add_to_card(stage.folder / "model", measured_facts(run, results[name], latencies[name]))
        write_report(
            folder,
            results=results,
            latencies=latencies,
            chosen=read_stage_json(search.folder / "chosen.json"),
            candidate_log=search.folder / "candidates.jsonl",
            trainings={
                "supernet": supernet.folder,
                **{name: stage.folder for name, stage in trained.items() if name in recipe.systems},
            },
            score_label="validation loss" if recipe.search.rank_by == "loss" else "minus BLEU",
            protocol=run.protocol,
            bounded=tuple(recipe.search.constraints),
            profile=latency_file if recipe.latency.source == "profile" else None,
        )

    fingerprints = [stage.fingerprint for stage in (search, *evaluated.values(), latency)]
    return run.folder.stage("report", fingerprints, work)


def measured_facts(run: Run, result: Mapping[str, Any], latency: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's card says of it."""
    train = run.recipe.data.train
    return {
        "source_language": run.recipe.data.source_language,
        "target_language": run.recipe.data.target_language,
        "corpus": train.dataset or Path(train.path or train.source_path or "").name,
        "BLEU": result["scores"]["bleu"],
        "BLEU signature": result["scores"]["bleu_signature"],
        "chrF": result["scores"]["chrf"],
        "sparsity": result["counts"]["sparsity"],
        "FLOPs as routed on the test set": result["counts_as_routed"]["flops"],
        f"latency, ms a {'sentence' if run.protocol.batch == 1 else 'batch'}": latency["latency_ms"],
        "latency protocol": ", ".join(f"{k} {v}" for k, v in run.protocol.plain().items()),
    }
