"""The training loop, one for supernets and single models: each step trains the members that a rule names.

Lightning Fabric gives device, precision, process groups and loggers. Nothing is wrapped in
DistributedDataParallel: a sub-network is other parameters each step, so gradients are summed here, once a
step. Fabric is imported only when a training starts: its import takes seconds, which no other command pays.

Everything random in step s derives from (seed, s): the members, the same on all ranks, and the dropout,
other on each rank. So there are no generator states to save, and a resumed run is the same run.
"""

from __future__ import annotations

import dataclasses
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import nn

from automoe.data.batching import Batch
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.model.sharing import Supernet
from automoe.storage import digest, disk_errors, read_json, write_json
from automoe.training.checkpoint import (
    Checkpoints,
    average_weights,
    load_weights,
    read_metadata,
    weights,
    write_tensors,
)
from automoe.training.history import History
from automoe.training.muon import block_optimizer
from automoe.training.objective import validation_nll
from automoe.training.optimizer import BlockAdam
from automoe.training.results import BatchSource, Judgement, TrainingDiverged, TrainingProgress, TrainResult
from automoe.training.rules import SupernetRule
from automoe.training.schedule import learning_rate, snapshot_steps
from automoe.training.settings import ONCE_DECISIVE, TrainingSettings, decisive
from automoe.training.step import step_gradients, sum_over_ranks

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def train(
    supernet: Supernet,
    rule: SupernetRule,
    stream: BatchSource,
    settings: TrainingSettings,
    folder: Path,
    *,
    validation_batches: Sequence[Batch] = (),
    validation_networks: Mapping[str, Architecture] | None = None,
    report: Callable[[TrainingProgress], None] | None = None,
) -> TrainResult:
    """Train the supernet's weights; in `folder`, continue what was interrupted, or return what is finished.

    Each step trains the members that `rule` names on the same `accumulation` micro-batches a process, and
    makes one update with the mean of their gradients. What gets no gradient, outside the leading block that
    holds those of all members too, is left alone, moments included (`BlockAdam`, or `BlockMuon`). Rate by
    `schedule.learning_rate`. The result is the mean of the last snapshots or, where one network is validated
    and their loss is lower, the last weights.

    Under torchrun every process calls this with an equal stream and takes every n-th batch of it. Losses,
    rates and speeds go to `history.jsonl` and to `tensorboard/` in the folder, from the first process; of a
    step with several members, the losses of the teacher, or of the first one where none teaches.

    Raises:
        InputError: a damaged or foreign checkpoint in the folder; a full disk.
        TrainingDiverged: NaN or infinity in loss or gradient, before it reaches the weights.
    """
    watched = validation_networks or {}
    training = _Training(supernet, rule, stream, settings, folder, validation_batches, watched, report)
    final = training.final
    finished = final.exists()
    # Nobody writes before everybody has looked.
    training.fabric.barrier()
    if not finished:
        training.run(settings.steps)
    metadata = read_metadata(final, training.fingerprints, "delete it, then this training starts again")
    load_weights(final, training.network)
    return TrainResult(final, metadata["target_tokens"], metadata["seconds"], metadata["validation"])


def train_until(
    supernet: Supernet,
    rule: SupernetRule,
    stream: BatchSource,
    settings: TrainingSettings,
    folder: Path,
    until: int,
    *,
    validation_batches: Sequence[Batch],
    validation_networks: Mapping[str, Architecture],
    report: Callable[[TrainingProgress], None] | None = None,
) -> Judgement:
    """Train as `train` does, but pause after step `until` and judge; a step judged before is not again.

    Steps, rates and weights are those of the whole training: called for a later step, or followed by
    `train`, it ends with the weights of a training without pauses, to the last bit. What is judged is the
    mean of the snapshots that a training of `until` steps would have as its result, without those before an
    earlier pause. The supernet's weights afterwards are not those of any step: the folder holds these.

    Raises:
        InputError: as `train`; or `until` is not a step before the last one, or one that the training in
            the folder has passed without judging it.
        TrainingDiverged: as `train`.
    """
    if not 1 <= until < settings.steps:
        known = f"expected a step before the last one, 1 to {settings.steps - 1}, got {until}"
        raise InputError("this training cannot pause there", [f"until: {known}", "train goes to the end"])
    watched = validation_networks
    training = _Training(supernet, rule, stream, settings, folder, validation_batches, watched, report)
    finished, judged = training.final.exists(), training.judged(until).exists()
    training.fabric.barrier()
    if not judged:
        if finished:
            read_metadata(training.final, training.fingerprints, "delete it, then this training starts again")
            raise _passed(folder, until, "it is finished, train returns its result")
        training.run(until)
    return training.read_judgement(until)


class _Training:
    """One call of `train` or `train_until`: a training and its folder."""

    def __init__(
        self,
        supernet: Supernet,
        rule: SupernetRule,
        stream: BatchSource,
        settings: TrainingSettings,
        folder: Path,
        validation_batches: Sequence[Batch],
        watched: Mapping[str, Architecture],
        report: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self.fabric = _launch(settings)
        self.supernet = supernet
        self.rule = rule
        self.stream = stream
        self.settings = settings
        self.folder = folder
        self.validation_batches = validation_batches
        self.report = report
        self.network = supernet.network.to(self.fabric.device)
        self.watched = watched
        self.fingerprints = _fingerprints(settings, supernet)
        self.checkpoints = Checkpoints(folder, *self.fingerprints)
        self.final = folder / "weights.safetensors"

    def judged(self, until: int) -> Path:
        """The file of a judgement."""
        return self.folder / f"judged-{until:08d}.json"

    def read_judgement(self, until: int) -> Judgement:
        """The judgement of that file; snapshots that a kill left of it are deleted."""
        path, mend = self.judged(until), "delete it, and the folder if the training is past that step"
        plain = read_json(path, mend)
        if plain.get("fingerprint") not in self.fingerprints:
            cause = "it was written with other settings, another architecture or another vocabulary"
            raise InputError(f"{path}: belongs to another training", [cause, mend])
        if self.fabric.is_global_zero:
            for snapshot in self.folder.glob(f"{path.stem}-*.safetensors"):
                snapshot.unlink()
        return Judgement(plain["step"], plain["validation"], plain["target_tokens"], plain["seconds"])

    def run(self, until: int) -> None:
        """Resume, make the steps up to `until`, average; write the final weights, or the judgement."""
        settings = self.settings
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.network.train()
        optimizer = block_optimizer(settings.optimizer, self.network)
        state = self.checkpoints.load_latest(self.network, optimizer)
        first, target_tokens, seconds_before = 1, 0, 0.0
        if state is not None:
            first, target_tokens, seconds_before = state["step"] + 1, state["tokens"], state["seconds"]
            self.stream.load_state_dict(state["stream"])
        if first - 1 > until:
            raise _passed(self.folder, until, f"it is at step {first - 1}, judge a later one")
        history = self._open_history(first - 1)
        validation: dict[str, float] = {}
        start = time.perf_counter()
        tokens_here = 0
        try:
            # Dropout draws from torch's global generators; the caller gets them back as they were.
            with torch.random.fork_rng(devices=self._gpus()):
                for step in range(first, until + 1):
                    figures, tokens = self._step(step, optimizer)
                    target_tokens += tokens
                    tokens_here += tokens
                    validating = step == settings.steps or step % settings.validate_every == 0
                    if validating:
                        validation = self._validate()
                        figures |= {f"validation/{name}": loss for name, loss in validation.items()}
                    seconds = time.perf_counter() - start
                    speed = tokens_here / seconds
                    figures |= {"target_tokens": target_tokens, "tokens_per_second": speed}
                    if history is not None:
                        history.log(step, figures)
                        if validating:
                            history.flush()
                        for path in self._snapshots(step, until):
                            self._save_snapshot(path)
                        if step == until or step % settings.checkpoint_every == 0:
                            history.flush()
                            state = {
                                "tokens": target_tokens,
                                "seconds": seconds_before + seconds,
                                "stream": self.stream.state_dict(),
                            }
                            self.checkpoints.save(step, self.network, optimizer, state)
                        if self.report is not None:
                            loss = figures["loss"]
                            self.report(TrainingProgress(step, settings.steps, loss, speed, validation))
        finally:
            if history is not None:
                history.close()
        self._finish(until, target_tokens, seconds_before + time.perf_counter() - start)

    def _step(self, step: int, optimizer: BlockAdam) -> tuple[dict[str, float], int]:
        """One update; returns its figures and the target tokens of all ranks."""
        settings = self.settings
        members = self.rule(step, random.Random(f"sub-network {settings.seed} {step}"))
        batches = [next(self.stream) for _ in range(settings.accumulation * self.fabric.world_size)]
        gradients = step_gradients(self.fabric, self.supernet, members, batches, settings, step)
        norm = float(nn.utils.clip_grad_norm_(gradients.blocks.parameters(), settings.clip_norm))
        if not all(map(math.isfinite, (*gradients.losses, norm))):
            self._stop(step, gradients.losses, norm)
        rate = learning_rate(
            step,
            steps=settings.steps,
            warmup_steps=settings.warmup_steps,
            peak_rate=settings.peak_rate,
            final_rate_ratio=settings.final_rate_ratio,
            schedule=settings.schedule,
            decay_share=settings.decay_share,
        )
        optimizer.step(gradients.blocks, rate)
        figures = {"loss": gradients.losses[0], "nll": gradients.nll, "balance": gradients.balance}
        figures |= {"rate": rate, "gradient_norm": norm}
        return figures, sum(batch.target_tokens for batch in batches)

    def _stop(self, step: int, losses: Sequence[float], norm: float) -> NoReturn:
        paths = self.checkpoints.paths()
        good = f"{paths[-1]} is the last good checkpoint" if paths else "there is no checkpoint yet"
        raise TrainingDiverged(
            f"training diverged at step {step}: loss {', '.join(map(str, losses))}, gradient norm {norm}",
            [good, "lower peak_rate, lengthen warmup_steps or set precision to 32-true, and train anew"],
        )

    def _finish(self, until: int, target_tokens: int, seconds: float) -> None:
        whole = until == self.settings.steps
        last = self._snapshot(until, until)
        if self.fabric.is_global_zero and not whole and not last.exists():
            # The step was made, and its checkpoint written, before anybody asked for a judgement.
            self._save_snapshot(last)
        # Snapshots are the first process's to write, and all processes' to read.
        self.fabric.barrier()
        steps = snapshot_steps(until, self.settings.average_checkpoints)
        paths = [self._snapshot(step, until) for step in steps]
        if not whole:  # those before an earlier pause were never written
            paths = [path for path in paths if path.exists()]
        for path in paths:
            read_metadata(path, self.fingerprints, f"delete {self.folder}, then this training starts again")
        validation = self._average(paths)
        if whole and len(paths) > 1 and len(validation) == 1:
            # A rate that has fallen far settles weights as a mean does: then the last ones are the better.
            last_validation = self._average(paths[-1:])
            if [*last_validation.values()] < [*validation.values()]:
                validation = last_validation
            else:
                average_weights(paths, self.network)
        result = {
            "fingerprint": self.fingerprints[0],
            "target_tokens": target_tokens,
            "seconds": seconds,
            "validation": validation,
        }
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            if whole:
                write_tensors(self.final, weights(self.network), result)
                self.checkpoints.delete()
                paths += self.folder.glob("judged-*.safetensors")
            else:
                write_json(self.judged(until), {"step": until, **result})
            for path in paths:
                path.unlink()
        self.fabric.barrier()

    def _average(self, paths: Sequence[Path]) -> dict[str, float]:
        """Put the mean of these snapshots into the network, and validate it."""
        average_weights(paths, self.network)
        return self._validate()

    def _validate(self) -> dict[str, float]:
        """Mean negative log-likelihood a token of each network; every rank does its share of the batches."""
        fabric, losses = self.fabric, {}
        for name, architecture in self.watched.items():
            network = self.supernet.subnetwork(architecture)
            batches = self.validation_batches[fabric.global_rank :: fabric.world_size]
            with fabric.autocast():
                sums = validation_nll(network, batches)
            total = torch.tensor(sums, dtype=torch.float64, device=fabric.device)
            nll_sum, tokens = sum_over_ranks(fabric, total).tolist()
            losses[name] = nll_sum / tokens
        return losses

    def _open_history(self, step: int) -> History | None:
        if not self.fabric.is_global_zero:
            return None
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        # What an interrupted run logged after its last checkpoint is logged again: purge it.
        logger = TensorBoardLogger(self.folder, name="tensorboard", version="", purge_step=step + 1)
        return History(self.folder, step, logger)

    def _snapshot(self, step: int, until: int) -> Path:
        """The weights of `step` as a part of the mean at `until`; judgements have files of their own."""
        whole = until == self.settings.steps
        prefix = "snapshot" if whole else self.judged(until).stem
        return self.folder / f"{prefix}-{step:08d}.safetensors"

    def _snapshots(self, step: int, until: int) -> list[Path]:
        """What to write after `step`: for the mean at `until`, and for the final one."""
        ends, averaged = {until, self.settings.steps}, self.settings.average_checkpoints
        return [self._snapshot(step, end) for end in sorted(ends) if step in snapshot_steps(end, averaged)]

    def _save_snapshot(self, path: Path) -> None:
        write_tensors(path, weights(self.network), {"fingerprint": self.fingerprints[0]})

    def _gpus(self) -> list[torch.device]:
        return [self.fabric.device] if self.fabric.device.type == "cuda" else []


def check_device(settings: TrainingSettings) -> None:
    """Raises an InputError where this machine has no such device as the settings name."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda, but this machine has none", ["set device to auto or cpu"])


def _launch(settings: TrainingSettings) -> Fabric:
    """Fabric on the settings' device; under torchrun, one of its processes."""
    from lightning.fabric import Fabric

    processes = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    check_device(settings)
    fabric = Fabric(
        accelerator=settings.device,
        devices=local,
        num_nodes=processes // local,
        strategy="ddp" if processes > 1 else "auto",
        precision=settings.precision,
    )
    fabric.launch()
    return fabric


def _passed(folder: Path, until: int, mend: str) -> InputError:
    again = "or delete the folder, then this training starts again"
    return InputError(f"{folder}: has passed step {until} without judging it", [f"{mend}; {again}"])


def _fingerprints(settings: TrainingSettings, supernet: Supernet) -> tuple[str, str]:
    """Of all that decides a training, and as earlier versions made it."""
    network = supernet.network
    parts: dict[str, Any] = {
        "architecture": network.architecture.to_dict(),
        "vocabulary_size": network.vocabulary_size,
        "options": dataclasses.asdict(network.options),
    }
    if supernet.other_mixers:
        parts["other mixers"] = supernet.other_mixers
    if supernet.versions > 1:
        parts["versions"] = supernet.versions
    plain = dataclasses.asdict(settings)
    deciding = decisive(plain)
    formerly = deciding | {name: plain[name] for name in ONCE_DECISIVE}
    return digest({"settings": deciding, **parts}), digest({"settings": formerly, **parts})
