"""The stage `search`: the best architecture of each system that is found by searching."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
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
from automoe.run.budget import SPACES, Budget, candidate_prices
from automoe.run.context import Run
from automoe.run.device_profile import bounds_latency, latency_inputs
from automoe.run.folder import Stage
from automoe.run.prepare import Prepared
from automoe.run.recipe import Recipe
from automoe.search.driver import SearchResult, run_search
from automoe.search.evaluator import Score
from automoe.search.evolution import EvolutionSettings, evolution
from automoe.search.log import CandidateLog, SearchName
from automoe.search.random_search import random_search
from automoe.search.strategy import Strategy
from automoe.search.winner import MeasureCandidate, Measured, Winner, measured_winner
from automoe.storage import read_json, whole_file, write_json
from automoe.training.objective import validation_loss


@dataclass(frozen=True, slots=True)
class Searched:
    """How a system is found: by a strategy of `STRATEGIES`, in a part of the space of `SPACES`."""

    strategy: str
    space: str


@dataclass(frozen=True, slots=True)
class Effort:
    """What a strategy may spend.

    Attributes:
        algorithm: the recipe's `search.algorithm`.
        candidates: how many AutoMoE's own search scored, for a fair comparison; before it, how many the
            algorithm scores at most.
    """

    algorithm: EvolutionSettings
    candidates: int


SEARCHED = {
    "automoe": Searched("evolution", "whole"),
    "hat": Searched("evolution", "dense"),
    "random": Searched("random", "whole"),
}
"""Which system is found how; they are searched for in this order."""
_SHIPPED = dict(SEARCHED)

STRATEGIES: dict[str, Callable[[Effort], tuple[Strategy, int]]] = {
    "evolution": lambda effort: (evolution(effort.algorithm), effort.algorithm.budget),
    "random": lambda effort: (random_search(effort.candidates), effort.candidates),
}
"""Name of a strategy to what makes it, and how many candidates it scores at most."""


def search_architectures(
    run: Run, prepared: Prepared, supernet_stage: Stage, network: Supernet, budget: Budget
) -> tuple[Stage, dict[str, Architecture]]:
    """Search under the budget; every candidate goes to `candidates.jsonl`.

    With a bound on a measured cost, the best candidates are measured until one keeps it (`measured.json`).

    Returns:
        The best architecture of each search the systems need, by system; `chosen.json` says more.
    """
    recipe, reporter = run.recipe, run.reporter
    wanted = [
        SearchName(system, searched.strategy, searched.space)
        for system, searched in SEARCHED.items()
        if system in recipe.systems
    ]

    def work(folder: Path) -> None:
        prices = candidate_prices(run, budget.latency_file)
        score = _score(recipe, network, prepared)
        log_file = folder / "candidates.jsonl"
        if not log_file.exists():
            # What the budget was found feasible by: measured again, it might come out as infeasible.
            with whole_file(log_file) as temporary:
                shutil.copyfile(budget.stage.folder / "candidates.jsonl", temporary)
        log = CandidateLog(log_file)
        measure = remembered(_measurer(run, budget.latency_file), folder / "measured.json")
        chosen: dict[str, Any] = {}
        effort = Effort(recipe.search.algorithm, recipe.search.algorithm.budget)
        for name in wanted:
            strategy, planned = STRATEGIES[name.strategy](effort)
            found = run_search(
                name,
                SPACES[name.space](run.space),
                strategy,
                budget.constraints,
                prices,
                score,
                random.Random(recipe.search.seed),
                log,
                _progress(reporter, name, planned),
            )
            if name.system == "automoe":
                effort = dataclasses.replace(effort, candidates=len(found.candidates))
            winner = measured_winner(found.candidates, measure) if bounds_latency(recipe) else None
            chosen[name.system] = _record(name, found, winner)
            _say_found(reporter, name, found, winner)
            best = winner.trial.candidate if winner else found.best
            save_architecture(best.architecture, folder / f"{name.system}.yaml")
        write_json(folder / "chosen.json", chosen)

    stage = run.folder.stage("search", _inputs(run, supernet_stage, budget, wanted), work)
    chosen = read_json(stage.folder / "chosen.json")
    designs = {name: Architecture.from_dict(found["architecture"]) for name, found in chosen.items()}
    return stage, designs


def _inputs(run: Run, supernet_stage: Stage, budget: Budget, wanted: list[SearchName]) -> list[Any]:
    recipe = run.recipe
    inputs = [
        supernet_stage.fingerprint,
        budget.stage.fingerprint,
        latency_inputs(run, budget.latency_file),
        recipe.latency.runs,
        [name.system for name in wanted],
    ]
    if recipe.search.rank_by == "bleu":
        inputs += [recipe.plain("translation"), recipe.data.target_language]
    changed = {
        name.system: [name.strategy, name.space]
        for name in wanted
        if SEARCHED[name.system] != _SHIPPED.get(name.system)
    }
    return [*inputs, changed] if changed else inputs


def _score(recipe: Recipe, network: Supernet, prepared: Prepared) -> Score:
    """Validation loss, or minus the greedy BLEU, on the same sentences for every candidate."""
    search, data = recipe.search, recipe.data
    if search.rank_by == "bleu":
        pairs = load_pairs(data.valid, data.limits)[0][: search.sentences]
        greedy = dataclasses.replace(recipe.translation, beam_size=1, n_best=1)

        def minus_bleu(architecture: Architecture) -> float:
            model = network.subnetwork(architecture)
            translated = evaluate_model(model, prepared.tokenizer, pairs, data.target_language, greedy)
            return -translated.scores.bleu

        return minus_bleu
    indices = range(min(search.sentences, len(prepared.valid)))
    batches = fixed_batches(prepared.valid, 4 * recipe.supernet.batch_tokens, indices)
    return lambda architecture: validation_loss(network.subnetwork(architecture), batches)


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
    records: list[dict[str, Any]] = read_json(path, kind=list) if path.exists() else []
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


def _progress(reporter: Reporter, name: SearchName, planned: int) -> Callable[[int, float], None]:
    bar = reporter.bar(f"search {name.system}")
    return lambda scored, best: bar(scored, planned, f"best {best:.3f}")


def _say_found(reporter: Reporter, name: SearchName, found: SearchResult, winner: Winner | None) -> None:
    if found.refusals:
        reporter.say(
            f"search {name.system}: {len(found.refusals):,} candidates were left out because their latency "
            f"could not be predicted; the first: {found.refusals[0]}"
        )
    best = winner.trial.candidate if winner else found.best
    text = f"search {name.system}: {best.score:.3f} with {best.architecture}"
    if winner:
        text += f"; {winner.trial}"
        if winner.rejected:
            text += f"; {len(winner.rejected)} with a better score broke the budget when measured"
    reporter.say(text)


def _record(name: SearchName, found: SearchResult, winner: Winner | None) -> dict[str, Any]:
    """What `chosen.json` says of one search."""
    best = winner.trial.candidate if winner else found.best
    record: dict[str, Any] = {
        "architecture": best.architecture.to_dict(),
        "strategy": name.strategy,
        "space": name.space,
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
