"""The gradients of one step: of all its members on the same batches, summed into blocks of the supernet.

What a member learns are gradients of leading blocks of the supernet's parameters (`Supernet.gradients`). The
sum of several blocks of one parameter lies in the smallest leading block that holds them all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from automoe.data.batching import Batch
from automoe.model.sharing import Supernet, as_module, leading_block
from automoe.training.objective import Teacher, objective, to_device
from automoe.training.rules import Members
from automoe.training.settings import TrainingSettings

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass(frozen=True)
class StepGradients:
    """What the members of one step learnt.

    Attributes:
        blocks: what the members touched: parameters by the supernet's names, which are leading blocks of
            the supernet's and have gradients.
        losses: of each member, a mean over target tokens; the teacher's first, then in the members' order.
        nll, balance: of the first of these, means over target tokens.
    """

    blocks: nn.Module
    losses: tuple[float, ...]
    nll: float
    balance: float


def step_gradients(
    fabric: Fabric,
    supernet: Supernet,
    members: Members,
    batches: Sequence[Batch],
    settings: TrainingSettings,
    step: int,
) -> StepGradients:
    """The gradient of the members' mean objective, itself a mean over the target tokens of all batches.

    Members that are taught share one forward pass of the teacher a batch, its dropout included. An expert to
    which no member sent a token, on any process, is not among the blocks.

    Args:
        batches: of all processes, the same on each; this one takes every n-th.
        step: with the settings' seed and the process's number, all of dropout's chance.
    """
    seed_dropout(f"dropout {settings.seed} {step} {fabric.global_rank}")
    tokens = sum(batch.target_tokens for batch in batches)
    own = [to_device(batch, fabric.device) for batch in batches[fabric.global_rank :: fabric.world_size]]
    order = sorted(range(len(members.architectures)), key=lambda index: index != members.teacher)
    sums = torch.zeros(len(order), 3, dtype=torch.float64, device=fabric.device)
    gradients: dict[str, Tensor] = {}
    names: dict[str, None] = {}  # an ordered set
    teachers: list[Teacher | None] = [None] * len(own)
    for row, index in enumerate(order):
        network = supernet.subnetwork(members.architectures[index])
        network.zero_grad(set_to_none=True)
        for batch_index, batch in enumerate(own):
            with fabric.autocast():
                part = objective(
                    network,
                    batch,
                    label_smoothing=settings.label_smoothing,
                    balance_coefficient=settings.balance_coefficient,
                    teacher=teachers[batch_index],
                )
            (part.loss / (tokens * len(order))).backward()
            sums[row] += torch.stack([part.loss.detach(), part.nll_sum, part.balance * part.tokens])
            if index == members.teacher:
                weight_VC = network.embedding.detach()
                teachers[batch_index] = Teacher(part.hidden_ND, weight_VC, members.distillation)
        for name, gradient in supernet.gradients(network).items():
            names[name] = None
            if gradient is not None:
                gradients[name] = _sum_of_blocks(gradients.get(name), gradient)
    if fabric.world_size > 1:
        sums = sum_over_ranks(fabric, sums)
        gradients = _gradients_of_all_ranks(fabric, supernet.network, names, gradients)
    means = (sums / tokens).tolist()
    losses = tuple(loss for loss, _, _ in means)
    return StepGradients(
        _blocks_with_gradients(supernet.network, gradients), losses, means[0][1], means[0][2]
    )


def sum_over_ranks(fabric: Fabric, values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on each of them."""
    return cast(Tensor, fabric.all_reduce(values, reduce_op="sum"))


def seed_dropout(key: str) -> None:
    """Draw dropout from what a text says, so that there is no generator's state to save."""
    torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))


def _sum_of_blocks(total: Tensor | None, block: Tensor) -> Tensor:
    """Leading blocks of one parameter's gradient added; in place where the first one holds the second."""
    if total is None:
        return block
    total = _padded(total, list(map(max, total.shape, block.shape)))
    leading_block(total, block.shape).add_(block)
    return total


def _padded(block: Tensor, shape: Sequence[int]) -> Tensor:
    """A leading block, with zeros around it up to `shape`."""
    if block.shape == torch.Size(shape):
        return block
    padded = block.new_zeros(shape)
    leading_block(padded, block.shape).copy_(block)
    return padded


def _gradients_of_all_ranks(
    fabric: Fabric, network: nn.Module, names: Iterable[str], gradients: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Sum the gradients over ranks, in one bucket.

    An expert may have got tokens on some ranks only, and of some members only: how large a block has a
    gradient on any rank is agreed on first.

    Args:
        names: of what may have a gradient, the same on all ranks.
    """
    large = dict(network.named_parameters())
    touched = [gradients[name].shape if name in gradients else (0,) * large[name].dim() for name in names]
    sizes = torch.tensor([size for shape in touched for size in shape], device=fabric.device)
    agreed = iter(cast(Tensor, fabric.all_reduce(sizes, reduce_op="max")).tolist())
    shapes = {name: [next(agreed) for _ in range(large[name].dim())] for name in names}
    shapes = {name: shape for name, shape in shapes.items() if all(shape)}
    mine = [
        _padded(gradients[name], shape) if name in gradients else large[name].new_zeros(shape)
        for name, shape in shapes.items()
    ]
    bucket = sum_over_ranks(fabric, torch.cat([gradient.flatten() for gradient in mine]))
    parts = bucket.split([math.prod(shape) for shape in shapes.values()])
    return {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def _blocks_with_gradients(network: nn.Module, gradients: Mapping[str, Tensor]) -> nn.Module:
    """Leading blocks of the network's parameters, under their names, with these gradients."""
    large = dict(network.named_parameters())
    blocks = {}
    for name, gradient in gradients.items():
        blocks[name] = nn.Parameter(leading_block(large[name].detach(), gradient.shape))
        blocks[name].grad = gradient
    return as_module(blocks)
