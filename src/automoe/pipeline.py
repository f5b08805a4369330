"""The stages of a run, from corpus to table; each is skipped when done and continues when interrupted.

prepare      vocabulary and token ids of the corpora
supernet     the largest network, trained by a random sub-network each step
search       every candidate evaluated by evolution, dense evolution (HAT) and random search
train-*      each system from scratch; the winner also from the supernet's weights
evaluate-*   BLEU, chrF, costs, routing
latency      all systems measured one after another, by the papers' protocol
report       table and pictures
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from automoe.architecture import Architecture, save_architecture
from automoe.data.batching import BatchStream, TokenisedCorpus, fixed_batches
from automoe.data.corpus import CorpusSource, Pair, load_pairs
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.evaluation import evaluate_model
from automoe.inference.model_folder import load_model, save_model
from automoe.model.sharing import Supernet
from automoe.pricing import candidate_costs, count_costs, measure_together
from automoe.progress import Reporter
from automoe.recipe import LoadedRecipe
from automoe.report.report import write_report
from automoe.search.constraint import Constraint, parse_constraints
from automoe.search.evolution import evolve, random_search
from automoe.search.feasibility import check_feasible
from automoe.search.log import CandidateLog
from automoe.stages import RunFolder, Stage, is_first_process, read_json, write_json
from automoe.training.loop import Progress, TrainingSettings, TrainResult, train
from automoe.training.objective import validation_loss

StageName = Literal["prepare", "supernet", "search", "train", "evaluate", "report"]

BEAM_TOKENS = 2000  # source tokens translated together


@dataclass(frozen=True)
class Prepared:
    """What every later stage starts from."""

    stage: Stage
    tokenizer: Tokenizer
    train: TokenisedCorpus
    valid: TokenisedCorpus


@dataclass(frozen=True)
class Outcome:
    """What a run made: `model`, the winner's folder, and `report`, the folder with table and pictures."""

    model: Path
    report: Path


class Pipeline:
    """One recipe in one run folder; every method is one stage and runs what it builds on first.

    Args:
        loaded: the recipe. `runs_folder`: where `NAME/` is made. `reporter`: tells the user.

    Raises:
        InputError: the run folder belongs to another recipe.
    """

    def __init__(self, loaded: LoadedRecipe, runs_folder: Path, reporter: Reporter) -> None:
        self.recipe, self.space = loaded.recipe, loaded.space
        self.reporter = reporter
        self.run = RunFolder(runs_folder / self.recipe.name, self.recipe.name, reporter.say)

    def prepare(self) -> Prepared:
        """Train the joint vocabulary on the training text and store the corpora as token ids."""
        data = self.recipe.data
        splits = ("train", "valid", "test")
        rest = {
            name: value for name, value in self.recipe.plain("data")["data"].items() if name not in splits
        }
        inputs = [rest, {split: _digest(getattr(data, split)) for split in splits}]

        def work(folder: Path) -> None:
            report: dict[str, Any] = {}
            train_pairs, loaded = load_pairs(data.train, data.limits)
            report["train"] = dataclasses.asdict(loaded)
            texts = (text for pair in train_pairs for text in (pair.source, pair.target))
            tokenizer = train_tokenizer(texts, data.vocabulary.size, data.vocabulary.kind)
            tokenizer.save(folder / "tokenizer.json")
            valid_pairs, loaded = load_pairs(data.valid, data.limits)
            report["valid"] = dataclasses.asdict(loaded)
            # The test set is read again much later; what is wrong with it should be known now.
            report["test"] = dataclasses.asdict(load_pairs(data.test, data.limits)[1])
            for split, pairs in (("train", train_pairs), ("valid", valid_pairs)):
                corpus = TokenisedCorpus.build(pairs, tokenizer, data.max_tokens)
                corpus.save(folder / split)
                report[split]["pairs_with_tokens_in_range"] = len(corpus)
            write_json(folder / "report.json", report)

        stage = self.run.stage("prepare", inputs, work)
        return Prepared(
            stage,
            Tokenizer.load(stage.folder / "tokenizer.json"),
            TokenisedCorpus.load(stage.folder / "train"),
            TokenisedCorpus.load(stage.folder / "valid"),
        )

    def budget(self) -> tuple[Stage, tuple[Constraint, ...]]:
        """Turn the recipe's constraints into numbers, and check that the spaces can keep them.

        This comes before the supernet: an impossible budget should not cost a training.
        """
        recipe = self.recipe
        inputs = [repr(self.space), recipe.plain("search", "latency", "model")]
        spaces = [self.space, *([self.space.dense()] if "hat" in recipe.systems else [])]

        def work(folder: Path) -> None:
            costs, bounds = candidate_costs(recipe), {}
            for name, bound in recipe.search.constraints.items():
                dense = self.space.largest_dense()
                share = float(bound.rstrip("%")) / 100 if isinstance(bound, str) else None
                bounds[name] = bound if share is None else share * costs[name](dense)
            log = CandidateLog(folder / "candidates.jsonl")
            for space in spaces:
                rng = random.Random(recipe.search.seed)
                check_feasible(space, parse_constraints(bounds), costs, rng, log)
            write_json(folder / "constraints.json", bounds)

        stage = self.run.stage("budget", inputs, work)
        constraints = parse_constraints(read_json(stage.folder / "constraints.json"))
        for constraint in constraints:
            self.reporter.say(f"  {constraint}")
        return stage, constraints

    def supernet(self, prepared: Prepared) -> tuple[Stage, Supernet]:
        """Train the supernet: a random member of the space each step."""
        settings = self.recipe.supernet
        largest = self.space.largest()
        rng = random.Random(settings.seed)
        watched = {"largest": largest, "smallest": self.space.smallest()}
        watched |= {f"sample {i}": self.space.sample(rng) for i in (1, 2)}
        inputs = [prepared.stage.fingerprint, repr(self.space), self.recipe.plain("model", "supernet")]
        network = self._network(largest, prepared, settings.seed)

        def work(folder: Path) -> None:
            self._train("supernet", network, self.space.sample, settings, prepared, folder, watched)

        stage = self.run.stage("supernet", inputs, work, all_processes=True)
        self._train("supernet", network, self.space.sample, settings, prepared, stage.folder, watched)
        return stage, network

    def search(
        self,
        prepared: Prepared,
        supernet_stage: Stage,
        network: Supernet,
        budget: Stage,
        constraints: Sequence[Constraint],
    ) -> dict[str, Architecture]:
        """Search under the constraints; every candidate goes to `candidates.jsonl`.

        Returns:
            The best architecture of each search the systems need, by system.
        """
        recipe = self.recipe
        wanted = [system for system in ("automoe", "hat", "random") if system in recipe.systems]
        inputs = [supernet_stage.fingerprint, budget.fingerprint, recipe.plain("search", "latency"), wanted]

        def work(folder: Path) -> None:
            costs = candidate_costs(recipe)
            score = self._score(network, prepared)
            log = CandidateLog(folder / "candidates.jsonl")
            chosen: dict[str, Any] = {}
            evaluated = recipe.search.algorithm.budget
            for system in wanted:
                bar = self.reporter.bar(f"search {system}")
                rng = random.Random(recipe.search.seed)
                space = self.space.dense() if system == "hat" else self.space

                def tell(done: int, planned: int, best: float, bar: Any = bar) -> None:
                    bar(done, planned, f"best {best:.3f}")

                common = (constraints, costs, score, rng, log, tell, system)
                if system == "random":
                    found = random_search(space, evaluated, *common)
                else:
                    found = evolve(space, recipe.search.algorithm, *common)
                if system == "automoe":
                    evaluated = len(found.candidates)
                best = found.best
                chosen[system] = {
                    "architecture": best.architecture.to_dict(),
                    "costs": dict(best.costs),
                    "score": best.score,
                    "evaluated": len(found.candidates),
                }
                self.reporter.say(f"search {system}: {best.score:.3f} with {best.architecture}")
                save_architecture(best.architecture, folder / f"{system}.yaml")
            write_json(folder / "chosen.json", chosen)

        stage = self.run.stage("search", inputs, work)
        chosen = read_json(stage.folder / "chosen.json")
        return {system: Architecture.from_dict(found["architecture"]) for system, found in chosen.items()}

    def train(self, prepared: Prepared, system: str, architecture: Architecture) -> Stage:
        """Train one system from scratch; its `model/` folder is complete."""
        settings = self.recipe.training
        inputs = [
            prepared.stage.fingerprint,
            architecture.to_dict(),
            self.recipe.plain("model", "training"),
            self.space.largest().to_dict(),  # dropout's reference
        ]

        def work(folder: Path) -> None:
            network = self._network(architecture, prepared, settings.seed)
            self._train_model(f"train {system}", network, settings, prepared, folder)

        return self.run.stage(f"train-{system}", inputs, work, all_processes=True)

    def inherit(
        self,
        prepared: Prepared,
        supernet_stage: Stage,
        supernet: Supernet,
        winner: Architecture,
        settings: TrainingSettings,
    ) -> dict[str, Stage]:
        """The winner with the supernet's weights, as they are and trained on."""
        inputs = [supernet_stage.fingerprint, winner.to_dict()]

        def save_inherited(folder: Path) -> None:
            save_model(folder / "model", supernet.extract(winner), prepared.tokenizer, {})
            write_json(folder / "training.json", {"target_tokens": 0, "seconds": 0.0})

        def fine_tune(folder: Path) -> None:
            network = self._network(winner, prepared, settings.seed)
            network.network.load_state_dict(supernet.extract(winner).state_dict())
            self._train_model("fine-tune", network, settings, prepared, folder)

        inherited = self.run.stage("train-automoe-inherited", inputs, save_inherited)
        tuned = self.run.stage(
            "train-automoe-fine-tuned",
            [*inputs, self.recipe.plain("fine_tuning")],
            fine_tune,
            all_processes=True,
        )
        return {"automoe-inherited": inherited, "automoe-fine-tuned": tuned}

    def evaluate(self, system: str, trained: Stage) -> Stage:
        """Translate the test set, score it, count costs; `result.json` and `translations.txt`."""
        recipe = self.recipe
        inputs = [trained.fingerprint, recipe.plain("translation", "latency"), _digest(recipe.data.test)]

        def work(folder: Path) -> None:
            model, tokenizer = load_model(trained.folder / "model")
            pairs = load_pairs(recipe.data.test, recipe.data.limits)[0]
            self.reporter.say(f"evaluate {system}: translating {len(pairs)} sentences")
            language = recipe.data.target_language
            evaluation = evaluate_model(model, tokenizer, pairs, language, recipe.translation, BEAM_TOKENS)
            counts = count_costs(recipe, model.architecture)
            shares = {use.layer: use.shares for use in evaluation.expert_use}
            (folder / "translations.txt").write_text(
                "\n".join([*evaluation.translations, ""]), encoding="utf-8"
            )
            write_json(
                folder / "result.json",
                {
                    "system": system,
                    "architecture": model.architecture.to_dict(),
                    "scores": dataclasses.asdict(evaluation.scores),
                    "counts": dataclasses.asdict(counts),
                    "translation_seconds": evaluation.translation_seconds,
                    "routing_shares": shares,
                    "training": read_json(trained.folder / "training.json"),
                },
            )
            self.reporter.say(f"evaluate {system}: BLEU {evaluation.scores.bleu:.2f}")

        return self.run.stage(f"evaluate-{system}", inputs, work)

    def latency(self, trained: Mapping[str, Stage]) -> Stage:
        """Measure every trained system side by side, so that the ratios can be believed."""
        inputs = [{name: stage.fingerprint for name, stage in trained.items()}, self.recipe.plain("latency")]

        def work(folder: Path) -> None:
            models = {name: load_model(stage.folder / "model")[0] for name, stage in trained.items()}
            self.reporter.say(f"latency: {len(models)} systems, {self.recipe.latency.runs} runs each")
            measured = measure_together(self.recipe, models)
            write_json(
                folder / "latency.json",
                {name: dataclasses.asdict(latency) for name, latency in measured.items()},
            )

        return self.run.stage("latency", inputs, work)

    def execute(self, until: StageName = "report") -> Outcome | None:
        """Run all stages up to `until`; the outcome once there is a report.

        Raises:
            InputError: bad data, an impossible budget, a full disk, a training that diverged.
        """
        recipe = self.recipe
        prepared = self.prepare()
        if until == "prepare":
            return None
        budget, constraints = self.budget()
        supernet_stage, supernet = self.supernet(prepared)
        if until == "supernet":
            return None
        designs = self.search(prepared, supernet_stage, supernet, budget, constraints)
        designs |= {"dense": self.space.largest_dense(), "switch": self.space.switch()}
        if until == "search":
            return None
        trained: dict[str, Stage] = {
            system: self.train(prepared, system, designs[system]) for system in recipe.systems
        }
        if recipe.fine_tuning:
            winner = designs["automoe"]
            trained |= self.inherit(prepared, supernet_stage, supernet, winner, recipe.fine_tuning)
        if until == "train":
            return None
        evaluated = {system: self.evaluate(system, stage) for system, stage in trained.items()}
        latency = self.latency(trained)
        if until == "evaluate":
            return None

        def report(folder: Path) -> None:
            write_report(
                folder,
                results={name: read_json(stage.folder / "result.json") for name, stage in evaluated.items()},
                latencies=read_json(latency.folder / "latency.json"),
                candidate_log=self.run.path / "search" / "candidates.jsonl",
                trainings={"supernet": supernet_stage.folder}
                | {system: trained[system].folder for system in recipe.systems},
                score_label="validation loss" if recipe.search.rank_by == "loss" else "minus BLEU",
            )

        fingerprints = [stage.fingerprint for stage in (*evaluated.values(), latency)]
        stage = self.run.stage("report", fingerprints, report)
        return Outcome(trained["automoe"].folder / "model", stage.folder)

    def _network(self, largest: Architecture, prepared: Prepared, seed: int) -> Supernet:
        model = self.recipe.model
        return Supernet(
            largest,
            prepared.tokenizer.vocabulary_size,
            norm=model.norm,
            dropout=model.dropout,
            dropout_reference=self.space.largest(),
            seed=seed,
        )

    def _train(
        self,
        title: str,
        network: Supernet,
        draw: Callable[[random.Random], Architecture],
        settings: TrainingSettings,
        prepared: Prepared,
        folder: Path,
        watched: Mapping[str, Architecture],
    ) -> TrainResult:
        bar = self.reporter.bar(title)

        def report(progress: Progress) -> None:
            losses = ", ".join(f"{name} {loss:.3f}" for name, loss in progress.validation.items())
            text = f"loss {progress.loss:.3f}, {progress.tokens_per_second:.0f} tokens/s"
            bar(progress.step, progress.steps, f"{text} (valid: {losses})" if losses else text)

        return train(
            network,
            draw,
            BatchStream(prepared.train, settings.batch_tokens, settings.seed),
            settings,
            folder,
            validation_batches=fixed_batches(prepared.valid, 4 * settings.batch_tokens),
            validation_networks=watched,
            report=report,
        )

    def _train_model(
        self, title: str, network: Supernet, settings: TrainingSettings, prepared: Prepared, folder: Path
    ) -> None:
        architecture = network.network.architecture
        result = self._train(
            title, network, lambda rng: architecture, settings, prepared, folder, {"valid": architecture}
        )
        if is_first_process():
            facts = {
                "target_tokens": result.target_tokens,
                "seconds": result.seconds,
                "validation": dict(result.validation),
            }
            save_model(folder / "model", network.network, prepared.tokenizer, facts)
            write_json(folder / "training.json", facts)

    def _score(self, network: Supernet, prepared: Prepared) -> Callable[[Architecture], float]:
        """Validation loss, or minus the greedy BLEU, on the same sentences for every candidate."""
        search, data = self.recipe.search, self.recipe.data
        if search.rank_by == "bleu":
            pairs = load_pairs(data.valid, data.limits)[0]
            chosen: Sequence[Pair] = pairs[: search.sentences]
            greedy = dataclasses.replace(self.recipe.translation, beam_size=1)

            def minus_bleu(architecture: Architecture) -> float:
                model = network.subnetwork(architecture)
                translated = evaluate_model(
                    model, prepared.tokenizer, chosen, data.target_language, greedy, BEAM_TOKENS
                )
                return -translated.scores.bleu

            return minus_bleu
        indices = range(min(search.sentences, len(prepared.valid)))
        batches = fixed_batches(prepared.valid, 4 * self.recipe.supernet.batch_tokens, indices)
        return lambda architecture: validation_loss(network.subnetwork(architecture), batches)


def _digest(source: CorpusSource) -> dict[str, Any]:
    """What identifies a corpus: its description, and the content of its files."""
    plain: dict[str, Any] = dataclasses.asdict(source)
    for key in ("path", "source_path", "target_path"):
        if plain.get(key):
            path = Path(plain[key])
            plain[key] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return plain
