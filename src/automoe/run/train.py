"""The stages that train models: each system from scratch, the winner from the supernet's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from automoe.data.batching import BatchStream, fixed_batches
from automoe.design.architecture import Architecture
from automoe.inference.model_folder import save_model
from automoe.model.sharing import Supernet
from automoe.processes import is_first_process
from automoe.run.context import Run
from automoe.run.folder import Stage
from automoe.run.prepare import Prepared
from automoe.storage import write_json
from automoe.training.loop import DrawSubnetwork, TrainingProgress, TrainResult, train
from automoe.training.settings import TrainingSettings


def train_system(run: Run, prepared: Prepared, system: str, architecture: Architecture) -> Stage:
    """Train one system from scratch; its `model/` folder is complete."""
    settings = run.recipe.training
    inputs = [
        prepared.stage.fingerprint,
        architecture.to_dict(),
        run.recipe.plain("model", "training"),
        run.space.largest().to_dict(),  # dropout's reference
    ]

    def work(folder: Path) -> None:
        single = new_supernet(run, prepared, architecture, settings.seed)
        _train_model(run, prepared, f"train {system}", single, settings, folder)

    return run.folder.stage(f"train-{system}", inputs, work, all_processes=True)


def inherit(
    run: Run,
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
        single = new_supernet(run, prepared, winner, settings.seed)
        single.network.load_state_dict(supernet.extract(winner).state_dict())
        _train_model(run, prepared, "fine-tune", single, settings, folder)

    inherited = run.folder.stage("train-automoe-inherited", inputs, save_inherited)
    tuned = run.folder.stage(
        "train-automoe-fine-tuned",
        [*inputs, run.recipe.plain("fine_tuning")],
        fine_tune,
        all_processes=True,
    )
    return {"automoe-inherited": inherited, "automoe-fine-tuned": tuned}


def new_supernet(run: Run, prepared: Prepared, largest: Architecture, seed: int) -> Supernet:
    """A supernet with fresh weights, the recipe's norm and dropout; of one member, it is a single model."""
    model = run.recipe.model
    return Supernet(
        largest,
        prepared.tokenizer.vocabulary_size,
        norm=model.norm,
        dropout=model.dropout,
        dropout_reference=run.space.largest(),
        seed=seed,
    )


def fit(
    run: Run,
    prepared: Prepared,
    title: str,
    supernet: Supernet,
    draw: DrawSubnetwork,
    settings: TrainingSettings,
    folder: Path,
    watched: Mapping[str, Architecture],
) -> TrainResult:
    """Train on the prepared corpus, or load what `folder` holds finished; the user sees the progress.

    Args:
        draw: the sub-network of a step. `watched`: those whose validation loss is told, by name.
    """
    bar = run.reporter.bar(title)

    def report(progress: TrainingProgress) -> None:
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in progress.validation.items())
        text = f"loss {progress.loss:.3f}, {progress.tokens_per_second:.0f} tokens/s"
        bar(progress.step, progress.steps, f"{text} (valid: {losses})" if losses else text)

    return train(
        supernet,
        draw,
        BatchStream(prepared.train, settings.batch_tokens, settings.seed),
        settings,
        folder,
        validation_batches=fixed_batches(prepared.valid, 4 * settings.batch_tokens),
        validation_networks=watched,
        report=report,
    )


def _train_model(
    run: Run, prepared: Prepared, title: str, single: Supernet, settings: TrainingSettings, folder: Path
) -> None:
    architecture = single.network.architecture
    result = fit(
        run, prepared, title, single, lambda rng: architecture, settings, folder, {"valid": architecture}
    )
    if is_first_process():
        facts = {
            "target_tokens": result.target_tokens,
            "seconds": result.seconds,
            "validation": dict(result.validation),
        }
        save_model(folder / "model", single.network, prepared.tokenizer, facts)
        write_json(folder / "training.json", facts)
