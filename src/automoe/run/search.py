"""The stage `search`: the best architecture of each system that is found by searching."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from automoe.cost.sources import is_of_another_machine, measure_against_budget
from automoe.data.batching import fixed_batches
from automoe.data.corpus import load_pairs
from automoe.design.architecture import Architecture
from automoe.design.architecture_file import save_architecture
from automoe.errors import validate_plain
from automoe.evaluation.scores import evaluate_model
from automoe.model.sharing import Supernet
from automoe.progress import Reporter
from automoe.run.budget import Budget, candidate_prices
from automoe.run.context import Run
from automoe.run.device_profile import bounds_measured_cost, latency_inputs
from automoe.run.folder import Stage, read_stage_json
from automoe.run.prepare import Prepared
from automoe.run.recipe import Recipe
from automoe.run.systems import SPACES, STRATEGIES, Effort, changed_searches, wanted_searches
from automoe.search.driver import SearchResult, run_search
from automoe.search.evaluator import Score
from automoe.search.log import CandidateLog, SearchName
from automoe.search.winner import MeasureCandidate, Measured, Winner, measured_winner
from automoe.storage import whole_file, write_json
from automoe.training.objective import validation_loss


def search_architectures(
    run: Run, prepared: Prepared, supernet_stage: Stage, supernet: Supernet, budget: Budget
) -> tuple[Stage, dict[str, Architecture]]:
    """Search under the budget; every candidate goes to `candidates.jsonl`.

    With a bound on a measured cost, the best candidates are measured until one keeps it (`measured.json`).

    Returns:
        The best architecture of each search the systems need, by system; `chosen.json` says more.
    """
    recipe, reporter = run.recipe, run.reporter
    wanted = wanted_searches(recipe)

    def work(folder: Path) -> None:
        prices = candidate_prices(run, budget.latency_file)
        score = _score(recipe, supernet, prepared)
        log_file = folder / "candidates.jsonl"
        if not log_file.exists():
            # What the budget was found feasible by: measured again, it might come out as infeasible.
            with whole_file(log_file) as temporary:
                shutil.copyfile(budget.stage.folder / "candidates.jsonl", temporary)
        log = CandidateLog(log_file)
        measure = remembered(_measurer(run, budget.latency_file), folder / "measured.json")
        chosen: dict[str, Any] = {}
        effort = Effort(recipe.search.algorithm, recipe.search.algorithm.budget)
        for search in wanted:
            strategy, planned = STRATEGIES[search.strategy](effort)
            found = run_search(
                search,
                SPACES[search.space](run.space),
                strategy,
                budget.constraints,
                prices,
                score,
                random.Random(recipe.search.seed),
                log,
                _progress(reporter, search, planned),
            )
            if search.system == "automoe":
                effort = dataclasses.replace(effort, candidates=len(found.candidates))
            winner = measured_winner(found.candidates, measure) if bounds_measured_cost(recipe) else None
            chosen[search.system] = _record(search, found, winner)
            _say_found(reporter, search, found, winner)
            best = winner.trial.candidate if winner else found.best
            save_architecture(best.architecture, folder / f"{search.system}.yaml")
        write_json(folder / "chosen.json", chosen)

    stage = run.folder.stage("search", _inputs(run, supernet_stage, budget, wanted), work)
    chosen = read_stage_json(stage.folder / "chosen.json")
    designs = {system: Architecture.from_dict(found["architecture"]) for system, found in chosen.items()}
    return stage, designs


def _inputs(run: Run, supernet_stage: Stage, budget: Budget, wanted: list[SearchName]) -> list[Any]:
    recipe = run.recipe
    inputs = [
        supernet_stage.fingerprint,
        budget.stage.fingerprint,
        latency_inputs(run, budget.latency_file),
        recipe.latency.runs,
        [search.system for search in wanted],
    ]
    if recipe.search.rank_by == "bleu":
        inputs += [recipe.plain("translation"), recipe.data.target_language]
    return [*inputs, *changed_searches(wanted)]


def _score(recipe: Recipe, supernet: Supernet, prepared: Prepared) -> Score:
    """Validation loss, or minus the greedy BLEU, on the same sentences for every candidate."""
    search, data = recipe.search, recipe.data
    if search.rank_by == "bleu":
        pairs = load_pairs(data.valid, data.limits)[0][: search.sentences]
        greedy = dataclasses.replace(recipe.translation, beam_size=1, n_best=1)

        def minus_bleu(architecture: Architecture) -> float:
            model = supernet.subnetwork(architecture)
            translated = evaluate_model(model, prepared.tokenizer, pairs, data.target_language, greedy)
            return -translated.scores.bleu

        return minus_bleu
    indices = range(min(search.sentences, len(prepared.valid)))
    batches = fixed_batches(prepared.valid, 4 * recipe.supernet.batch_tokens, indices)
    return lambda architecture: validation_loss(supernet.subnetwork(architecture), batches)


def _measurer(run: Run, latency_file: Path | None) -> MeasureCandidate:
    """Measures one candidate for real; the user sees each figure."""
    latency, bounds = run.recipe.latency, run.recipe.search.constraints
    judged = not is_of_another_machine(latency, latency_file)
    largest_dense = run.space.largest_dense()

    def measure(architecture: Architecture) -> Measured:
        measured = measure_against_budget(
            run.protocol, latency, bounds, architecture, largest_dense, judged=judged
        )
        run.reporter.say(f"  {architecture}: {measured}")
        if measured.noise:
            run.reporter.say(f"  {measured.noise}")
        return measured

    return measure


def remembered(measure: MeasureCandidate, path: Path) -> MeasureCandidate:
    """`measure`, each architecture once: figures are kept in `path`, so a killed search finds them there."""
    records: list[dict[str, Any]] = read_stage_json(path, kind=list) if path.exists() else []
    known = {
        Architecture.from_dict(record["architecture"]): validate_plain(
            Measured, record["measured"], f"{path}: is damaged"
        )
        for record in records
    }

    def measured_once(architecture: Architecture) -> Measured:
        if architecture not in known:
            known[architecture] = measure(architecture)
            records.append(
                {
                    "architecture": architecture.to_dict(),
                    "measured": dataclasses.asdict(known[architecture]),
                }
            )
            write_json(path, records)
        return known[architecture]

    return measured_once


def _progress(reporter: Reporter, search: SearchName, planned: int) -> Callable[[int, float], None]:
    bar = reporter.bar(f"search {search.system}")
    return lambda scored, best: bar(scored, planned, f"best {best:.3f}")


def _say_found(reporter: Reporter, search: SearchName, found: SearchResult, winner: Winner | None) -> None:
    if found.refusals:
        reporter.say(
            f"search {search.system}: {len(found.refusals):,} candidates were left out because their latency "
            f"could not be predicted; the first: {found.refusals[0]}"
        )
    best = winner.trial.candidate if winner else found.best
    text = f"search {search.system}: {best.score:.3f} with {best.architecture}"
    if winner:
        text += f"; {winner.trial}"
        if winner.rejected:
            text += f"; {len(winner.rejected)} with a better score broke the budget when measured"
    reporter.say(text)


def _record(search: SearchName, found: SearchResult, winner: Winner | None) -> dict[str, Any]:
    """What `chosen.json` says of one search."""
    best = winner.trial.candidate if winner else found.best
    record: dict[str, Any] = {
        "architecture": best.architecture.to_dict(),
        "strategy": search.strategy,
        "space": search.space,
        "costs": dict(best.costs),
        "score": best.score,
        "evaluated": len(found.candidates),
        "not_priced": len(found.refusals),
    }
    if winner:
        record["predicted_latency_ms"] = best.costs["latency_ms"]
        record["measured"] = dataclasses.asdict(winner.trial.measured)
        record["rejected"] = [
            {
                "architecture": trial.candidate.architecture.to_dict(),
                "score": trial.candidate.score,
                "predicted_latency_ms": trial.candidate.costs["latency_ms"],
                "measured": dataclasses.asdict(trial.measured),
            }
            for trial in winner.rejected
        ]
    return record
