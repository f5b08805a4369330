"""The training loop, one for supernets and single models: a random sub-network each step.

Lightning Fabric gives device, precision, process groups and loggers. Nothing is wrapped in
DistributedDataParallel: a sub-network is other parameters each step, so gradients are summed here, once a
step. Fabric is imported only when a training starts: its import takes seconds, which no other command pays.

Everything random in step s derives from (seed, s): the sub-network, the same on all ranks, and the
dropout, other on each rank. So there are no generator states to save, and a resumed run is the same run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn

from automoe.data.batching import Batch
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.model.sharing import Supernet
from automoe.model.transformer import Transformer
from automoe.storage import digest, disk_errors
from automoe.training.checkpoint import (
    Checkpoints,
    average_weights,
    load_weights,
    read_metadata,
    weights,
    write_tensors,
)
from automoe.training.history import History
from automoe.training.objective import objective, to_device, validation_nll
from automoe.training.optimizer import BlockAdam
from automoe.training.schedule import learning_rate, snapshot_steps
from automoe.training.settings import TrainingSettings

if TYPE_CHECKING:
    from lightning.fabric import Fabric


DrawSubnetwork: TypeAlias = Callable[[random.Random], Architecture]
"""Which sub-network a step trains, given all its chance."""


class BatchSource(Protocol):
    """An endless stream of batches whose position is plain JSON (`automoe.data.batching.BatchStream`)."""

    def __next__(self) -> Batch:
        """The next batch; there always is one."""

    def state_dict(self) -> dict[str, Any]:
        """Its position, as JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position of a `state_dict`: the batches after it come again."""


@dataclasses.dataclass(frozen=True)
class TrainingProgress:
    """What the callback hears after each step; `validation` holds the newest losses, by network."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    validation: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        weights: the file of the (averaged) weights; the supernet given to `train` holds them too.
        target_tokens: trained on. `seconds`: of wall time, interruptions left out.
        validation: mean negative log-likelihood a token of the final weights, by network.
    """

    weights: Path
    target_tokens: int
    seconds: float
    validation: Mapping[str, float]


class TrainingDiverged(InputError):  # noqa: N818  # as the field says it
    """The loss or the gradient is not a number any more; names the step and the last good checkpoint."""


def train(
    supernet: Supernet,
    draw: DrawSubnetwork,
    stream: BatchSource,
    settings: TrainingSettings,
    folder: Path,
    *,
    validation_batches: Sequence[Batch] = (),
    validation_networks: Mapping[str, Architecture] | None = None,
    report: Callable[[TrainingProgress], None] | None = None,
) -> TrainResult:
    """Train the supernet's weights; in `folder`, continue what was interrupted, or return what is finished.

    Each step trains the sub-network that `draw` returns on `accumulation` micro-batches a process; what gets
    no gradient, outside the sub-network's blocks too, is left alone, moments included (`BlockAdam`). Betas
    (0.9, 0.98), rate by `schedule.learning_rate`, result by averaging snapshots.

    Under torchrun every process calls this with an equal stream and takes every n-th batch of it. Losses,
    rates and speeds go to `history.jsonl` and to `tensorboard/` in the folder, from the first process.

    Raises:
        InputError: a damaged or foreign checkpoint in the folder; a full disk.
        TrainingDiverged: NaN or infinity in loss or gradient, before it reaches the weights.
    """
    fabric = _launch(settings)
    network = supernet.network.to(fabric.device)
    fingerprint = _fingerprint(settings, network)
    final = folder / "weights.safetensors"
    finished = final.exists()
    # Nobody writes before everybody has looked.
    fabric.barrier()
    if not finished:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        networks = {name: supernet.subnetwork(a) for name, a in (validation_networks or {}).items()}
        training = _Training(fabric, supernet, draw, stream, settings, folder, fingerprint, report)
        training.run(lambda: _validate(fabric, networks, validation_batches))
    metadata = read_metadata(final, fingerprint, "delete it, then this training starts again")
    load_weights(final, network)
    return TrainResult(final, metadata["target_tokens"], metadata["seconds"], metadata["validation"])


class _Training:
    """One call of `train` that has something to do."""

    def __init__(
        self,
        fabric: Fabric,
        supernet: Supernet,
        draw: DrawSubnetwork,
        stream: BatchSource,
        settings: TrainingSettings,
        folder: Path,
        fingerprint: str,
        report: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self.fabric = fabric
        self.supernet = supernet
        self.draw = draw
        self.stream = stream
        self.settings = settings
        self.folder = folder
        self.fingerprint = fingerprint
        self.report = report
        self.network = supernet.network.train()
        self.optimizer = BlockAdam(self.network, betas=(0.9, 0.98), eps=1e-9)
        self.checkpoints = Checkpoints(folder, fingerprint)

    def run(self, validate: Callable[[], dict[str, float]]) -> None:
        """Resume, make the steps that are left, average, write the final weights."""
        settings = self.settings
        state = self.checkpoints.load_latest(self.network, self.optimizer)
        first, target_tokens, seconds_before = 1, 0, 0.0
        if state is not None:
            first, target_tokens, seconds_before = state["step"] + 1, state["tokens"], state["seconds"]
            self.stream.load_state_dict(state["stream"])
        history = self._open_history(first - 1)
        snapshots = snapshot_steps(settings.steps, settings.average_checkpoints)
        validation: dict[str, float] = {}
        start = time.perf_counter()
        tokens_here = 0
        try:
            # Dropout draws from torch's global generators; the caller gets them back as they were.
            with torch.random.fork_rng(devices=self._gpus()):
                for step in range(first, settings.steps + 1):
                    figures, tokens = self._step(step)
                    target_tokens += tokens
                    tokens_here += tokens
                    last = step == settings.steps
                    if last or step % settings.validate_every == 0:
                        validation = validate()
                        figures |= {f"validation/{name}": loss for name, loss in validation.items()}
                    seconds = time.perf_counter() - start
                    figures |= {"target_tokens": target_tokens, "tokens_per_second": tokens_here / seconds}
                    if history is not None:
                        history.log(step, figures)
                        if last or step % settings.validate_every == 0:
                            history.flush()
                        if step in snapshots:
                            metadata = {"fingerprint": self.fingerprint}
                            write_tensors(self._snapshot(step), weights(self.network), metadata)
                        if last or step % settings.checkpoint_every == 0:
                            history.flush()
                            state = {
                                "tokens": target_tokens,
                                "seconds": seconds_before + seconds,
                                "stream": self.stream.state_dict(),
                            }
                            self.checkpoints.save(step, self.network, self.optimizer, state)
                        if self.report is not None:
                            speed = tokens_here / seconds
                            loss = figures["loss"]
                            self.report(TrainingProgress(step, settings.steps, loss, speed, validation))
        finally:
            if history is not None:
                history.close()
        self._finish(snapshots, target_tokens, seconds_before + time.perf_counter() - start, validate)

    def _step(self, step: int) -> tuple[dict[str, float], int]:
        """One update; returns its figures and the target tokens of all ranks."""
        fabric, settings = self.fabric, self.settings
        self._seed_dropout(step)
        network = self.supernet.subnetwork(self.draw(random.Random(f"sub-network {settings.seed} {step}")))
        batches = [next(self.stream) for _ in range(settings.accumulation * fabric.world_size)]
        tokens = sum(batch.target_tokens for batch in batches)
        sums = torch.zeros(3, dtype=torch.float64, device=fabric.device)
        network.zero_grad(set_to_none=True)
        for batch in batches[fabric.global_rank :: fabric.world_size]:
            with fabric.autocast():
                part = objective(
                    network,
                    to_device(batch, fabric.device),
                    label_smoothing=settings.label_smoothing,
                    balance_coefficient=settings.balance_coefficient,
                )
            (part.loss / tokens).backward()
            sums += torch.stack([part.loss.detach(), part.nll_sum, part.balance * part.tokens])
        if fabric.world_size > 1:
            sums = _sum_over_ranks(fabric, sums)
            _sum_gradients(fabric, network)
        loss, nll, balance = (sums / tokens).tolist()
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._stop(step, loss, norm)
        rate = learning_rate(
            step,
            steps=settings.steps,
            warmup_steps=settings.warmup_steps,
            peak_rate=settings.peak_rate,
            final_rate_ratio=settings.final_rate_ratio,
        )
        self.optimizer.step(network, rate)
        figures = {"loss": loss, "nll": nll, "balance": balance, "rate": rate, "gradient_norm": norm}
        return figures, tokens

    def _seed_dropout(self, step: int) -> None:
        key = f"dropout {self.settings.seed} {step} {self.fabric.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))

    def _stop(self, step: int, loss: float, norm: float) -> NoReturn:
        paths = self.checkpoints.paths()
        good = f"{paths[-1]} is the last good checkpoint" if paths else "there is no checkpoint yet"
        raise TrainingDiverged(
            f"training diverged at step {step}: loss {loss}, gradient norm {norm}",
            [good, "lower peak_rate, lengthen warmup_steps or set precision to 32-true, and train anew"],
        )

    def _finish(
        self,
        snapshots: Sequence[int],
        target_tokens: int,
        seconds: float,
        validate: Callable[[], dict[str, float]],
    ) -> None:
        paths = [self._snapshot(step) for step in snapshots]
        # Snapshots are the first process's to write, and all processes' to read.
        self.fabric.barrier()
        for path in paths:
            read_metadata(path, self.fingerprint, f"delete {self.folder}, then this training starts again")
        average_weights(paths, self.network)
        metadata = {
            "fingerprint": self.fingerprint,
            "target_tokens": target_tokens,
            "seconds": seconds,
            "validation": validate(),
        }
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            write_tensors(self.folder / "weights.safetensors", weights(self.network), metadata)
            self.checkpoints.delete()
            for path in paths:
                path.unlink()
        self.fabric.barrier()

    def _open_history(self, step: int) -> History | None:
        if not self.fabric.is_global_zero:
            return None
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        # What an interrupted run logged after its last checkpoint is logged again: purge it.
        logger = TensorBoardLogger(self.folder, name="tensorboard", version="", purge_step=step + 1)
        return History(self.folder, step, logger)

    def _snapshot(self, step: int) -> Path:
        return self.folder / f"snapshot-{step:08d}.safetensors"

    def _gpus(self) -> list[torch.device]:
        return [self.fabric.device] if self.fabric.device.type == "cuda" else []


def _launch(settings: TrainingSettings) -> Fabric:
    """Fabric on the settings' device; under torchrun, one of its processes."""
    from lightning.fabric import Fabric

    processes = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda, but this machine has none", ["set device to auto or cpu"])
    fabric = Fabric(
        accelerator=settings.device,
        devices=local,
        num_nodes=processes // local,
        strategy="ddp" if processes > 1 else "auto",
        precision=settings.precision,
    )
    fabric.launch()
    return fabric


def _sum_gradients(fabric: Fabric, network: Transformer) -> None:
    """Sum the gradients over ranks, in one bucket.

    An expert may have got tokens on some ranks only: who has a gradient is agreed on first.
    """
    parameters = list(network.parameters())
    has = [parameter.grad is not None for parameter in parameters]
    counts = _sum_over_ranks(fabric, torch.tensor(has, dtype=torch.float32, device=fabric.device))
    touched = [p for p, count in zip(parameters, counts.tolist(), strict=True) if count]
    grads = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in touched]
    bucket = _sum_over_ranks(fabric, torch.cat([grad.flatten() for grad in grads]))
    for parameter, part in zip(touched, bucket.split([p.numel() for p in touched]), strict=True):
        parameter.grad = part.view_as(parameter)


def _sum_over_ranks(fabric: Fabric, values: Tensor) -> Tensor:
    return cast(Tensor, fabric.all_reduce(values, reduce_op="sum"))


def _validate(
    fabric: Fabric, networks: Mapping[str, Transformer], batches: Sequence[Batch]
) -> dict[str, float]:
    """Mean negative log-likelihood a token of each network; every rank does its share of the batches."""
    losses = {}
    for name, network in networks.items():
        with fabric.autocast():
            sums = validation_nll(network, batches[fabric.global_rank :: fabric.world_size])
        total = torch.tensor(sums, dtype=torch.float64, device=fabric.device)
        nll_sum, tokens = _sum_over_ranks(fabric, total).tolist()
        losses[name] = nll_sum / tokens
    return losses


def _fingerprint(settings: TrainingSettings, network: Transformer) -> str:
    parts = {
        "settings": dataclasses.asdict(settings),
        "architecture": network.architecture.to_dict(),
        "vocabulary_size": network.vocabulary_size,
        "options": dataclasses.asdict(network.options),
    }
    return digest(parts)
