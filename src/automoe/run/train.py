"""The stages of a run that train: the supernet, each system from scratch, the winner from its weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from automoe.data.batching import BatchStream, fixed_batches
from automoe.design.architecture import Architecture
from automoe.inference.model_folder import save_model
from automoe.model.sharing import Supernet
from automoe.processes import is_first_process
from automoe.progress import Reporter
from automoe.run.folder import RunFolder, Stage
from automoe.run.prepare import Prepared
from automoe.run.recipe import LoadedRecipe
from automoe.storage import write_json
from automoe.training.loop import TrainingProgress, TrainResult, train
from automoe.training.settings import TrainingSettings


class TrainingStages:
    """The trainings of one run; every method is a stage, or two.

    Args:
        loaded: the recipe. `run`: its folder. `reporter`: tells the user. `prepared`: the corpora.
    """

    def __init__(self, loaded: LoadedRecipe, run: RunFolder, reporter: Reporter, prepared: Prepared) -> None:
        self._recipe, self._space = loaded.recipe, loaded.space
        self._run, self._reporter, self._prepared = run, reporter, prepared

    def supernet(self) -> tuple[Stage, Supernet]:
        """Train the supernet: a random member of the space each step."""
        settings = self._recipe.supernet
        largest = self._space.largest()
        rng = random.Random(settings.seed)
        watched = {"largest": largest, "smallest": self._space.smallest()}
        watched |= {f"sample {i}": self._space.sample(rng) for i in (1, 2)}
        plain = self._recipe.plain("model", "supernet")
        inputs = [self._prepared.stage.fingerprint, repr(self._space), plain]
        network = self._network(largest, settings.seed)

        def work(folder: Path) -> None:
            self._train("supernet", network, self._space.sample, settings, folder, watched)

        stage = self._run.stage("supernet", inputs, work, all_processes=True)
        self._train("supernet", network, self._space.sample, settings, stage.folder, watched)
        return stage, network

    def train(self, system: str, architecture: Architecture) -> Stage:
        """Train one system from scratch; its `model/` folder is complete."""
        settings = self._recipe.training
        inputs = [
            self._prepared.stage.fingerprint,
            architecture.to_dict(),
            self._recipe.plain("model", "training"),
            self._space.largest().to_dict(),  # dropout's reference
        ]

        def work(folder: Path) -> None:
            network = self._network(architecture, settings.seed)
            self._train_model(f"train {system}", network, settings, folder)

        return self._run.stage(f"train-{system}", inputs, work, all_processes=True)

    def inherit(
        self, supernet_stage: Stage, supernet: Supernet, winner: Architecture, settings: TrainingSettings
    ) -> dict[str, Stage]:
        """The winner with the supernet's weights, as they are and trained on."""
        inputs = [supernet_stage.fingerprint, winner.to_dict()]

        def save_inherited(folder: Path) -> None:
            save_model(folder / "model", supernet.extract(winner), self._prepared.tokenizer, {})
            write_json(folder / "training.json", {"target_tokens": 0, "seconds": 0.0})

        def fine_tune(folder: Path) -> None:
            network = self._network(winner, settings.seed)
            network.network.load_state_dict(supernet.extract(winner).state_dict())
            self._train_model("fine-tune", network, settings, folder)

        inherited = self._run.stage("train-automoe-inherited", inputs, save_inherited)
        tuned = self._run.stage(
            "train-automoe-fine-tuned",
            [*inputs, self._recipe.plain("fine_tuning")],
            fine_tune,
            all_processes=True,
        )
        return {"automoe-inherited": inherited, "automoe-fine-tuned": tuned}

    def _network(self, largest: Architecture, seed: int) -> Supernet:
        model = self._recipe.model
        return Supernet(
            largest,
            self._prepared.tokenizer.vocabulary_size,
            norm=model.norm,
            dropout=model.dropout,
            dropout_reference=self._space.largest(),
            seed=seed,
        )

    def _train(
        self,
        title: str,
        network: Supernet,
        draw: Callable[[random.Random], Architecture],
        settings: TrainingSettings,
        folder: Path,
        watched: Mapping[str, Architecture],
    ) -> TrainResult:
        bar = self._reporter.bar(title)

        def report(progress: TrainingProgress) -> None:
            losses = ", ".join(f"{name} {loss:.3f}" for name, loss in progress.validation.items())
            text = f"loss {progress.loss:.3f}, {progress.tokens_per_second:.0f} tokens/s"
            bar(progress.step, progress.steps, f"{text} (valid: {losses})" if losses else text)

        return train(
            network,
            draw,
            BatchStream(self._prepared.train, settings.batch_tokens, settings.seed),
            settings,
            folder,
            validation_batches=fixed_batches(self._prepared.valid, 4 * settings.batch_tokens),
            validation_networks=watched,
            report=report,
        )

    def _train_model(self, title: str, network: Supernet, settings: TrainingSettings, folder: Path) -> None:
        architecture = network.network.architecture
        result = self._train(
            title, network, lambda rng: architecture, settings, folder, {"valid": architecture}
        )
        if is_first_process():
            facts = {
                "target_tokens": result.target_tokens,
                "seconds": result.seconds,
                "validation": dict(result.validation),
            }
            save_model(folder / "model", network.network, self._prepared.tokenizer, facts)
            write_json(folder / "training.json", facts)
