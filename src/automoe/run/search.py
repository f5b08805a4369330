"""The stages of a run that decide on architectures: the device profile, the budget, the search."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from automoe.cost.device.probing import make_profile
from automoe.cost.sources import (
    LatencyMs,
    candidate_costs,
    is_of_another_machine,
    latency_source,
    measure_against_budget,
    share_of,
)
from automoe.data.batching import fixed_batches
from automoe.data.corpus import load_pairs
from automoe.design.architecture import Architecture
from automoe.design.architecture_file import save_architecture
from automoe.errors import InputError
from automoe.evaluation.scores import evaluate_model
from automoe.model.sharing import Supernet
from automoe.progress import Reporter
from automoe.run.folder import RunFolder, Stage
from automoe.run.prepare import Prepared
from automoe.run.recipe import LoadedRecipe
from automoe.search.constraint import Constraint, parse_constraints
from automoe.search.evolution import SearchResult, evolve, random_search
from automoe.search.feasibility import check_feasible
from automoe.search.log import CandidateLog
from automoe.search.winner import Measure, Measured, Winner, measured_winner
from automoe.storage import file_digest, read_json, write_json
from automoe.training.objective import validation_loss

BEAM_TOKENS = 2000  # source tokens translated together


class SearchStages:
    """How one run finds its architectures; every method is a stage.

    Args:
        loaded: the recipe. `run`: its folder. `reporter`: tells the user.
    """

    def __init__(self, loaded: LoadedRecipe, run: RunFolder, reporter: Reporter) -> None:
        self._recipe, self._space = loaded.recipe, loaded.space
        self._run, self._reporter = run, reporter
        self._bounds_latency = "latency_ms" in self._recipe.search.constraints

    def latency_file(self) -> Path | None:
        """The profile or predictor that prices candidates; a profile that the recipe lacks is made.

        None when nothing is priced by a file.
        """
        latency = self._recipe.latency
        if not self._bounds_latency or latency.source == "measurement":
            return None
        given = latency.predictor if latency.source == "predictor" else latency.profile
        if given is not None:
            return Path(given)
        protocol = self._recipe.protocol()

        def work(folder: Path) -> None:
            say, bar = self._reporter.say, self._reporter.bar("profile")
            make_profile(self._space, protocol, folder / "device.json", say, progress=bar)

        inputs = [repr(self._space), dataclasses.asdict(protocol)]
        return self._run.stage("profile", inputs, work).folder / "device.json"

    def budget(self, latency_file: Path | None) -> tuple[Stage, tuple[Constraint, ...]]:
        """Turn the recipe's constraints into numbers, and check that the spaces can keep them.

        This comes before the supernet: an impossible budget should not cost a training.
        """
        recipe = self._recipe
        inputs = [
            repr(self._space),
            recipe.plain("search", "model"),
            self._latency_inputs(latency_file),
            "hat" in recipe.systems,
        ]
        spaces = [self._space, *([self._space.dense()] if "hat" in recipe.systems else [])]

        def work(folder: Path) -> None:
            costs = candidate_costs(recipe, self._latency_ms(latency_file))
            bounds = {name: self._bound(name, costs) for name in recipe.search.constraints}
            log = CandidateLog(folder / "candidates.jsonl")
            for space in spaces:
                rng = random.Random(recipe.search.seed)
                check_feasible(space, parse_constraints(bounds), costs, rng, log)
            write_json(folder / "constraints.json", bounds)

        stage = self._run.stage("budget", inputs, work)
        constraints = parse_constraints(read_json(stage.folder / "constraints.json"))
        for constraint in constraints:
            self._reporter.say(f"  {constraint}")
        return stage, constraints

    def search(
        self,
        prepared: Prepared,
        supernet_stage: Stage,
        network: Supernet,
        latency_file: Path | None,
        budget: Stage,
        constraints: Sequence[Constraint],
    ) -> tuple[Stage, dict[str, Architecture]]:
        """Search under the constraints; every candidate goes to `candidates.jsonl`.

        With a bound on the latency, the best candidates are measured until one keeps it (`measured.json`).

        Returns:
            The best architecture of each search the systems need, by system; `chosen.json` says more.
        """
        recipe = self._recipe
        wanted = [system for system in ("automoe", "hat", "random") if system in recipe.systems]
        inputs = [
            supernet_stage.fingerprint,
            budget.fingerprint,
            self._latency_inputs(latency_file),
            recipe.latency.runs,
            wanted,
        ]

        def work(folder: Path) -> None:
            costs = candidate_costs(recipe, self._latency_ms(latency_file))
            score = self._score(network, prepared)
            log_file = folder / "candidates.jsonl"
            if not log_file.exists():
                # What the budget was found feasible by: measured again, it might come out as infeasible.
                shutil.copyfile(budget.folder / "candidates.jsonl", log_file)
            log = CandidateLog(log_file)
            measure = remembered(self._measurer(latency_file), folder / "measured.json")
            chosen: dict[str, Any] = {}
            evaluated = recipe.search.algorithm.budget
            for system in wanted:
                bar = self._reporter.bar(f"search {system}")
                rng = random.Random(recipe.search.seed)
                space = self._space.dense() if system == "hat" else self._space

                def tell(done: int, planned: int, best: float, bar: Any = bar) -> None:
                    bar(done, planned, f"best {best:.3f}")

                common = (constraints, costs, score, rng, log, tell, system)
                if system == "random":
                    found = random_search(space, evaluated, *common)
                else:
                    found = evolve(space, recipe.search.algorithm, *common)
                if system == "automoe":
                    evaluated = len(found.candidates)
                winner = measured_winner(found.candidates, measure) if self._bounds_latency else None
                chosen[system] = _record(found, winner)
                best = winner.trial.candidate if winner else found.best
                self._say_found(system, found, winner)
                save_architecture(best.architecture, folder / f"{system}.yaml")
            write_json(folder / "chosen.json", chosen)

        stage = self._run.stage("search", inputs, work)
        chosen = read_json(stage.folder / "chosen.json")
        designs = {name: Architecture.from_dict(found["architecture"]) for name, found in chosen.items()}
        return stage, designs

    def _latency_ms(self, file: Path | None) -> LatencyMs | None:
        return latency_source(self._recipe, file, self._reporter.say) if self._bounds_latency else None

    def _latency_inputs(self, file: Path | None) -> Any:
        """What decides the latencies that candidates are priced by."""
        latency = self._recipe.latency
        return [
            dataclasses.asdict(self._recipe.protocol()),
            latency.source if self._bounds_latency else None,
            latency.search_runs if latency.source == "measurement" else None,
            None if file is None else file_digest(file),
        ]

    def _bound(self, name: str, costs: Mapping[str, LatencyMs]) -> float:
        bound = self._recipe.search.constraints[name]
        share = share_of(bound)
        if share is None:
            return float(bound)
        try:
            return share * costs[name](self._space.largest_dense())
        except InputError as error:
            raise InputError(
                f"search.constraints.{name}: {bound} is a share of the largest dense architecture's, "
                "which has no price",
                [str(error), "give the bound as a number, or use another latency.source"],
            ) from error

    def _measurer(self, latency_file: Path | None) -> Measure:
        """Measures one candidate for real; the user sees each figure."""
        judged = not is_of_another_machine(self._recipe, latency_file)
        largest_dense = self._space.largest_dense()

        def measure(architecture: Architecture) -> Measured:
            measured = measure_against_budget(self._recipe, architecture, largest_dense, judged=judged)
            self._reporter.say(f"  {architecture}: {measured}")
            if measured.noise:
                self._reporter.say(f"  {measured.noise}")
            return measured

        return measure

    def _say_found(self, system: str, found: SearchResult, winner: Winner | None) -> None:
        if found.refusals:
            self._reporter.say(
                f"search {system}: {len(found.refusals):,} candidates were left out because their latency "
                f"could not be predicted; the first: {found.refusals[0]}"
            )
        best = winner.trial.candidate if winner else found.best
        text = f"search {system}: {best.score:.3f} with {best.architecture}"
        if winner:
            text += f"; {winner.trial}"
            if winner.rejected:
                text += f"; {len(winner.rejected)} with a better score broke the budget when measured"
        self._reporter.say(text)

    def _score(self, network: Supernet, prepared: Prepared) -> Callable[[Architecture], float]:
        """Validation loss, or minus the greedy BLEU, on the same sentences for every candidate."""
        search, data = self._recipe.search, self._recipe.data
        if search.rank_by == "bleu":
            pairs = load_pairs(data.valid, data.limits)[0][: search.sentences]
            greedy = dataclasses.replace(self._recipe.translation, beam_size=1)

            def minus_bleu(architecture: Architecture) -> float:
                model = network.subnetwork(architecture)
                translated = evaluate_model(
                    model, prepared.tokenizer, pairs, data.target_language, greedy, BEAM_TOKENS
                )
                return -translated.scores.bleu

            return minus_bleu
        indices = range(min(search.sentences, len(prepared.valid)))
        batches = fixed_batches(prepared.valid, 4 * self._recipe.supernet.batch_tokens, indices)
        return lambda architecture: validation_loss(network.subnetwork(architecture), batches)


def remembered(measure: Measure, path: Path) -> Measure:
    """`measure`, each architecture once: figures are kept in `path`, so a killed search finds them there."""
    records: list[dict[str, Any]] = read_json(path) if path.exists() else []
    known = {Architecture.from_dict(r["architecture"]): Measured(**r["measured"]) for r in records}

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


def _record(found: SearchResult, winner: Winner | None) -> dict[str, Any]:
    """What `chosen.json` says of one search."""
    best = winner.trial.candidate if winner else found.best
    record: dict[str, Any] = {
        "architecture": best.architecture.to_dict(),
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
