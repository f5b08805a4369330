"""A few updates of a member's own, from the supernet's weights: what it is worth unshared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from automoe.data.batching import Batch
from automoe.model.transformer import Transformer
from automoe.training.muon import block_optimizer
from automoe.training.objective import objective, to_device, validation_loss
from automoe.training.results import BatchSource
from automoe.training.schedule import learning_rate
from automoe.training.settings import TrainingSettings
from automoe.training.step import seed_dropout

WARMUP_SHARE = 0.1


def loss_after_own_steps(
    network: Transformer,
    stream: BatchSource,
    settings: TrainingSettings,
    validation_batches: Sequence[Batch],
    *,
    steps: int,
    peak_rate: float,
) -> float:
    """Validation loss of a network, in nats a token, after `steps` updates; the network is changed.

    The optimizer starts afresh; the rate warms up over a tenth of the steps, and falls to nearly nothing in
    half a cosine. Dropout draws from (`settings.seed`, step), so equal calls give equal losses.

    Args:
        network: copies of the supernet's weights (`Supernet.extract`).
        settings: objective, precision, accumulation and clipping are as in the training.
        steps: 0 tells the loss as it is.

    Returns:
        Infinity when the steps diverged.
    """
    network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    optimizer = block_optimizer(settings.optimizer, network)
    device = network.embedding.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(1, steps + 1):
            seed_dropout(f"own step {settings.seed} {step}")
            batches = [to_device(next(stream), device) for _ in range(settings.accumulation)]
            tokens = sum(batch.target_tokens for batch in batches)
            for batch in batches:
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed"):
                    part = objective(
                        network,
                        batch,
                        label_smoothing=settings.label_smoothing,
                        balance_coefficient=settings.balance_coefficient,
                    )
                (part.loss / tokens).backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
            rate = learning_rate(
                step,
                steps=steps,
                warmup_steps=max(1, round(WARMUP_SHARE * steps)),
                peak_rate=peak_rate,
                final_rate_ratio=settings.final_rate_ratio,
            )
            optimizer.step(network, rate)
    loss = validation_loss(network, validation_batches)
    return loss if math.isfinite(loss) else math.inf
