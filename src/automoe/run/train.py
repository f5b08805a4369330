"""The stages that train models: each system from scratch, a winner from the supernet's weights.

What a single model learns is kept by what decides it (`trainings/HASH` of a run of one seed): so an
architecture that several systems or finals ask for is trained once, and a finalist's training goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from automoe.data.batching import Batch, BatchStream, fixed_batches
from automoe.design.architecture import Architecture, Mixer
from automoe.inference.model_folder import save_model
from automoe.model.mixture_of_supernets import MixtureOfSupernets
from automoe.model.sharing import Supernet
from automoe.processes import is_first_process, wait_for_all
from automoe.progress import Reporter
from automoe.run.context import Run
from automoe.run.distillation import distilled_name
from automoe.run.folder import FORMATS, Stage, read_stage_json
from automoe.run.inputs import former_values, settings_values
from automoe.run.prepare import Prepared
from automoe.run.systems import fine_tuned_names
from automoe.storage import digest, write_json
from automoe.training.loop import train, train_until
from automoe.training.results import Judgement, TrainingProgress, TrainResult
from automoe.training.rules import SupernetRule, only
from automoe.training.schedule import snapshot_steps
from automoe.training.settings import TrainingSettings

# Steps whose time says how many fill given minutes: the first ones warm caches up.
TIMED_STEPS, UNTIMED_STEPS = 40, 10


def train_system(
    run: Run,
    prepared: Prepared,
    system: str,
    architecture: Architecture,
    minutes_of: Stage | None = None,
    found_by: Stage | None = None,
) -> Stage:
    """Train one system from scratch; its `model/` folder is complete.

    Args:
        minutes_of: another system's training, whose minutes this one gets instead of the recipe's steps. How
            many steps these are is measured once, and kept in `steps.json`.
        found_by: the stage that decided the architecture, if one did.
    """

    def settings(folder: Path) -> TrainingSettings:
        if minutes_of is None:
            return run.recipe.training
        return _settings_for_minutes(run, prepared, architecture, minutes_of, folder / "steps.json")

    return _train_as(run, prepared, system, system, architecture, settings, minutes_of, found_by)


def train_student(
    run: Run,
    taught: Prepared,
    twin: str,
    architecture: Architecture,
    steps_of: Stage | None = None,
    found_by: Stage | None = None,
) -> Stage:
    """Train the architecture of a system once more, on original and distilled pairs, for as many steps.

    Args:
        taught: the corpora with distilled pairs. `twin`: the system.
        steps_of: its training, if it had not the recipe's steps but the minutes of another.
        found_by: as in `train_system`.
    """

    def settings(folder: Path) -> TrainingSettings:
        if steps_of is None:
            return run.recipe.training
        return _with_steps(run.recipe.training, read_stage_json(steps_of.folder / "steps.json")["steps"])

    return _train_as(run, taught, distilled_name(twin), twin, architecture, settings, steps_of, found_by)


def _train_as(
    run: Run,
    prepared: Prepared,
    system: str,
    designed_as: str,
    architecture: Architecture,
    settings: Callable[[Path], TrainingSettings],
    counted_by: Stage | None,
    found_by: Stage | None,
) -> Stage:
    """The stage that trains a system from scratch.

    Args:
        designed_as: the system of the recipe that has this architecture. `settings`: for the stage's folder.
        counted_by: the stage that decides the number of steps, if one does.
    """
    inputs = training_inputs(run) | {f"systems.{designed_as}.architecture": architecture.to_dict()}

    def work(folder: Path) -> None:
        training = Training(run, prepared, architecture, settings(folder))
        save_trained(*training.finish(f"train {system}"), prepared, folder, training.folder)

    return run.folder.stage(
        f"train-{system}",
        inputs,
        work,
        after=[prepared.stage, *([] if counted_by is None else [counted_by])],
        led_by=[] if found_by is None else [found_by],
        formerly=run.formerly("training"),
        all_processes=True,
    )


def training_inputs(run: Run) -> dict[str, Any]:
    """What decides the weights of an architecture trained from scratch on prepared corpora."""
    largest = run.space.largest()
    return {
        **run.chosen("model", "training"),
        "seed": run.seed,
        "widths that dropout refers to": [largest.encoder_width, largest.decoder_width],
    }


def training_keys(run: Run, prepared: Prepared, architecture: Architecture) -> tuple[str, str]:
    """A digest of what decides the weights of an architecture from scratch, and an earlier version's."""
    inputs = training_inputs(run)
    now, before = (
        digest([prepared.stage.fingerprint, decides, architecture.to_dict(), FORMATS["train"]])
        for decides in (inputs, inputs | run.formerly("training"))
    )
    return now, before


class Training:
    """One architecture's training from scratch, in the folder of what decides it; it may be paused.

    Args:
        settings: how; the recipe's `training` unless said otherwise.
    """

    def __init__(
        self,
        run: Run,
        prepared: Prepared,
        architecture: Architecture,
        settings: TrainingSettings | None = None,
    ) -> None:
        self._run, self._prepared = run, prepared
        self._architecture = architecture
        self._settings = settings or run.recipe.training
        own = settings_values(self._settings, "training")
        now, before = training_keys(run, prepared, architecture)
        former = digest([before, own | former_values(self._settings, "training")])
        folders = [run.folder.path / "trainings" / key[:16] for key in (digest([now, own]), former)]
        # Of several processes none can be misled: what an earlier version made is there before all of them.
        self.folder = next((folder for folder in folders if folder.is_dir()), folders[0])

    def until(self, title: str, step: int) -> Judgement:
        """Train up to a step and judge it, or remember that judgement.

        A training that is past the step already, for another system, stays as it is: then this is another
        one, from the start, in a folder beside it.

        Raises:
            TrainingDiverged: the loss or the gradient is not a number any more.
        """
        folder = self.folder
        if self._has_passed(folder, step):
            folder = self._again
            passed = self._has_passed(folder, step)
            wait_for_all()  # nobody deletes before all have looked
            if passed:
                _delete_checkpoints(folder)
        settings = self._settings
        return train_until(
            self._single(),
            only(self._architecture),
            BatchStream(self._prepared.train, settings.batch_tokens, settings.seed),
            settings,
            folder,
            until=step,
            validation_batches=_validation_batches(self._prepared, settings),
            validation_networks={"valid": self._architecture},
            report=shown(self._run.reporter, title),
        )

    def finish(self, title: str) -> tuple[Supernet, TrainResult]:
        """Train to the end; the trained network, and what is known of its training."""
        single, architecture = self._single(), self._architecture
        watched = {"valid": architecture}
        return single, fit(
            self._run, self._prepared, title, single, only(architecture), self._settings, self.folder, watched
        )

    def forget_checkpoints(self) -> None:
        """Delete what an unfinished training would continue from; its history and judgements stay."""
        for folder in (self.folder, self._again):
            _delete_checkpoints(folder)

    def _has_passed(self, folder: Path, step: int) -> bool:
        """Whether the training in a folder is past the first step of which a judgement is the mean."""
        if (folder / f"judged-{step:08d}.json").exists():
            return False
        first = snapshot_steps(step, self._settings.average_checkpoints)[0]
        reached = [int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.safetensors")]
        newest = max(reached, default=0)
        snapshot = folder / f"judged-{step:08d}-{first:08d}.safetensors"
        missing = first <= newest and not snapshot.exists()
        return (folder / "weights.safetensors").exists() or newest > step or missing

    @property
    def _again(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}-again")

    def _single(self) -> Supernet:
        return new_supernet(self._run, self._prepared, self._architecture, self._settings.seed)


def inherit(
    run: Run,
    prepared: Prepared,
    supernet_stage: Stage,
    supernet: Supernet,
    system: str,
    winner: Architecture,
    settings: TrainingSettings,
    found_by: Stage,
) -> dict[str, Stage]:
    """The winner of a search with the supernet's weights, as they are and trained on.

    Args:
        found_by: the stage that decided who won.
    """
    inputs = {f"systems.{system}.architecture": winner.to_dict()}
    built_on: dict[str, Any] = {"after": [supernet_stage], "led_by": [found_by]}

    def save_inherited(folder: Path) -> None:
        save_model(folder / "model", supernet.extract(winner), prepared.tokenizer, {})
        write_json(folder / "training.json", {"target_tokens": 0, "seconds": 0.0})

    def fine_tune(folder: Path) -> None:
        single = new_supernet(run, prepared, winner, settings.seed)
        single.network.load_state_dict(supernet.extract(winner).state_dict())
        result = fit(run, prepared, "fine-tune", single, only(winner), settings, folder, {"valid": winner})
        save_trained(single, result, prepared, folder, folder)

    names = fine_tuned_names(system)
    inherited = run.folder.stage(f"train-{names[0]}", inputs, save_inherited, **built_on)
    tuned = run.folder.stage(
        f"train-{names[1]}",
        inputs | run.chosen("fine_tuning") | {"seed": run.seed},
        fine_tune,
        formerly=run.formerly("fine_tuning"),
        all_processes=True,
        **built_on,
    )
    return {names[0]: inherited, names[1]: tuned}


def new_supernet(
    run: Run,
    prepared: Prepared,
    largest: Architecture,
    seed: int,
    mixers: Sequence[Mixer] = (),
    versions: int = 1,
) -> Supernet:
    """A supernet with fresh weights, the recipe's norm and dropout; of one member, it is a single model.

    Args:
        versions: of its matrices (`Rule.versions`).
    """
    model = run.recipe.model
    kind = Supernet if versions == 1 else partial(MixtureOfSupernets, versions=versions)
    return kind(
        largest,
        prepared.tokenizer.vocabulary_size,
        norm=model.norm,
        dropout=model.dropout,
        dropout_reference=run.space.largest(),
        seed=seed,
        mixers=mixers,
    )


def fit(
    run: Run,
    prepared: Prepared,
    title: str,
    supernet: Supernet,
    rule: SupernetRule,
    settings: TrainingSettings,
    folder: Path,
    watched: Mapping[str, Architecture],
) -> TrainResult:
    """Train on the prepared corpus, or load what `folder` holds finished; the user sees the progress.

    Args:
        rule: the sub-networks of a step. `watched`: those whose validation loss is told, by name.
    """
    return train(
        supernet,
        rule,
        BatchStream(prepared.train, settings.batch_tokens, settings.seed),
        settings,
        folder,
        validation_batches=_validation_batches(prepared, settings),
        validation_networks=watched,
        report=shown(run.reporter, title),
    )


def shown(reporter: Reporter, title: str) -> Callable[[TrainingProgress], None]:
    """What shows the user how far a training is, and its losses."""
    bar = reporter.bar(title)

    def report(progress: TrainingProgress) -> None:
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in progress.validation.items())
        text = f"loss {progress.loss:.3f}, {progress.tokens_per_second:.0f} tokens/s"
        bar(progress.step, progress.steps, f"{text} (valid: {losses})" if losses else text)

    return report


def save_trained(
    single: Supernet, result: TrainResult, prepared: Prepared, folder: Path, history: Path
) -> None:
    """Write a trained model's folder, and `training.json`: what is known of its training.

    Args:
        history: the folder of the training, which has its history.
    """
    if not is_first_process():
        return
    facts = training_facts(result)
    save_model(folder / "model", single.network, prepared.tokenizer, facts)
    write_json(folder / "training.json", {**facts, "history": os.path.relpath(history, folder)})


def training_facts(result: TrainResult) -> dict[str, Any]:
    """What is known of a finished training, as JSON values."""
    return {
        "target_tokens": result.target_tokens,
        "seconds": result.seconds,
        "validation": dict(result.validation),
    }


def _delete_checkpoints(folder: Path) -> None:
    if is_first_process():
        for path in folder.glob("checkpoint-*.safetensors"):
            path.unlink()
    wait_for_all()


def _validation_batches(prepared: Prepared, settings: TrainingSettings) -> list[Batch]:
    return fixed_batches(prepared.valid, 4 * settings.batch_tokens)


def _settings_for_minutes(
    run: Run, prepared: Prepared, architecture: Architecture, other: Stage, path: Path
) -> TrainingSettings:
    """The recipe's settings with as many steps as take the minutes of another training."""
    settings = run.recipe.training
    known = path.exists()
    wait_for_all()  # nobody writes before all have looked
    if not known:
        seconds = read_stage_json(other.folder / "training.json")["seconds"]
        timed = replace(settings, steps=max(settings.steps, UNTIMED_STEPS + TIMED_STEPS + 1))
        per_step = _step_seconds(run, prepared, architecture, timed, path.parent / "timing")
        if is_first_process():
            write_json(path, {"steps": max(1, round(seconds / per_step)), "seconds_a_step": per_step})
            shutil.rmtree(path.parent / "timing")
    wait_for_all()
    return _with_steps(settings, read_stage_json(path)["steps"])


def _with_steps(settings: TrainingSettings, steps: int) -> TrainingSettings:
    """As many steps, and whatever may not be more."""
    return replace(
        settings,
        steps=steps,
        warmup_steps=min(settings.warmup_steps, steps),
        checkpoint_every=min(settings.checkpoint_every, steps),
    )


def _step_seconds(
    run: Run, prepared: Prepared, architecture: Architecture, settings: TrainingSettings, folder: Path
) -> float:
    """Mean seconds of a step of this training, of some that are made in `folder` and thrown away."""
    seconds = []
    for until in (UNTIMED_STEPS, UNTIMED_STEPS + TIMED_STEPS):
        judgement = train_until(
            new_supernet(run, prepared, architecture, settings.seed),
            only(architecture),
            BatchStream(prepared.train, settings.batch_tokens, settings.seed),
            settings,
            folder,
            until=until,
            validation_batches=(),
            validation_networks={},
        )
        seconds.append(judgement.seconds)
    return (seconds[1] - seconds[0]) / TIMED_STEPS
