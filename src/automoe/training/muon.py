"""Muon for shared weights: hidden layers' matrices get orthogonal updates, everything else Adam's.

Shapes: B matrices of one shape, of R rows and C columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn

from automoe.model.sharing import leading_block
from automoe.training.optimizer import BlockAdam
from automoe.training.precision import multiplies_bfloat16
from automoe.training.settings import OptimizerName

MOMENTUM = 0.95
ADAM_RMS = 0.2
"""Root mean square of an element of Adam's update, in rates, as Liu et al. found it."""
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


class BlockMuon(BlockAdam):
    """Muon (Jordan et al., 2024) over a supernet's matrices, given gradients of a sub-network.

    The update of a matrix is its momentum with all singular values made nearly one, in the sub-network's
    leading block alone: what lies outside keeps its weights and its momentum. Updates are scaled to the size
    that Adam's have (Liu et al., 2025, arXiv 2502.16982), so that one rate serves both. Embeddings, routers,
    biases and norms get `BlockAdam`'s. For whole parameters this is `torch.optim.Muon` without weight decay,
    with `adjust_lr_fn="match_rms_adamw"`, beside `torch.optim.Adam`.

    Attributes:
        state: as `BlockAdam`'s; of a matrix, its momentum alone, as `exp_avg`.
    """

    @torch.no_grad()
    def step(self, subnetwork: nn.Module, rate: float) -> None:
        """Update what has a gradient, and use it up: `grad` is None afterwards."""
        weights: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
        updates: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
        for name, parameter in hidden_matrices(subnetwork):
            if parameter.grad is None:
                continue
            grad_RC, parameter.grad = parameter.grad, None
            weight_RC, momentum_RC = (
                leading_block(full, grad_RC.shape)
                for full in (self.parameters[name].detach(), self._momentum(name))
            )
            momentum_RC.lerp_(grad_RC, 1 - MOMENTUM)
            weights[grad_RC.shape].append(weight_RC)
            updates[grad_RC.shape].append(grad_RC.lerp(momentum_RC, MOMENTUM))
        while updates:
            shape, updates_of_shape = updates.popitem()
            # Together, because products of single small matrices leave most of a processor idle.
            updates_BRC = orthogonalized(torch.stack(updates_of_shape))
            for weight_RC, update_RC in zip(weights[shape], updates_BRC, strict=True):
                weight_RC.add_(update_RC, alpha=-rate * ADAM_RMS * max(shape) ** 0.5)
        super().step(subnetwork, rate)

    def _is_adams(self, name: str, parameter: nn.Parameter) -> bool:
        return not _is_hidden_matrix(name, parameter)

    def _momentum(self, name: str) -> Tensor:
        parameter = self.parameters[name]
        if parameter not in self.state:
            self.state[parameter] = {"exp_avg": self._exp_avg[name]}
        return self.state[parameter]["exp_avg"]


def block_optimizer(kind: OptimizerName, network: nn.Module) -> BlockAdam:
    """The optimizer of that name; Adam has the papers' betas."""
    optimizer = BlockMuon if kind == "muon" else BlockAdam
    return optimizer(network, betas=(0.9, 0.98), eps=1e-9)


def hidden_matrices(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """What Muon updates: weights of linear layers but the routers'; the output layer is the embedding."""
    for name, parameter in network.named_parameters():
        if _is_hidden_matrix(name, parameter):
            yield name, parameter


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() == 2 and name.endswith(".weight") and not name.endswith("router.weight")


def orthogonalized(matrices_BRC: Tensor) -> Tensor:
    """U V' of each matrix U S V', nearly: by steps of a Newton-Schulz iteration, singular values 0.5 to 1.5.

    Computed in bfloat16 where the processor multiplies it fast, which is precise enough for that range; so
    the processes of one training need processors that are alike.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrices_BRC.shape[1] > matrices_BRC.shape[2]
    x_BRC = matrices_BRC.mT if tall else matrices_BRC
    norm_B11 = torch.linalg.matrix_norm(x_BRC, keepdim=True)
    x_BRC = (x_BRC / norm_B11.clamp(min=EPS)).to(_dtype(x_BRC.device.type))
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram_BRR = x_BRC @ x_BRC.mT
        polynomial_BRR = torch.baddbmm(gram_BRR, gram_BRR, gram_BRR, beta=b, alpha=c)
        x_BRC = torch.baddbmm(x_BRC, polynomial_BRR, x_BRC, beta=a)
    return (x_BRC.mT if tall else x_BRC).to(matrices_BRC.dtype)


@cache
def _dtype(device_type: str) -> torch.dtype:
    return torch.bfloat16 if multiplies_bfloat16(device_type) else torch.float32
