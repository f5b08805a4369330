"""Sub-layers that stand for a decoder's self-attention, at a cost that does not grow with the position.

Both keep one vector a beam. Padding is on the right, so what they carry on never comes from it.

Shapes: B sentences, T positions, K beams, D width, X any dimensions before the last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from automoe.design.architecture import StateTensor
from automoe.model.sublayers import Context, SubLayerModule


class AverageAttentionModule(SubLayerModule):
    """Average attention with its gate, without its feed-forward network (`AverageAttention` of the design).

    Args:
        width: D. `state`: what it keeps, the running sum of its inputs.
    """

    def __init__(self, width: int, state: tuple[StateTensor, ...]) -> None:
        super().__init__()
        self.state = state
        self.input_gate = _Gate(width)
        self.mean_gate = _Gate(width)

    def forward(self, x_BXD: Tensor, context: Context) -> tuple[Tensor, None]:
        """As `SubLayerModule.forward`."""
        positions = x_BXD.shape[1]
        counts_X1 = torch.arange(1, positions + 1, dtype=_exact(x_BXD), device=x_BXD.device)[:, None]
        mean_BXD = x_BXD.cumsum(dim=1, dtype=_exact(x_BXD)) / counts_X1
        return self._gated(x_BXD, mean_BXD.to(x_BXD.dtype)), None

    def step(self, x_BKD: Tensor, position: int, kept: dict[str, Tensor]) -> Tensor:
        """As `SubLayerModule.step`."""
        kept["average_sum"] = kept["average_sum"] + x_BKD[:, :, None].to(_exact(x_BKD))
        mean_BKD = kept["average_sum"][:, :, 0] / (position + 1)
        return self._gated(x_BKD, mean_BKD.to(x_BKD.dtype))

    def _gated(self, x_XD: Tensor, mean_XD: Tensor) -> Tensor:
        out_XD: Tensor = self.input_gate(x_XD, mean_XD) * x_XD + self.mean_gate(x_XD, mean_XD) * mean_XD
        return out_XD


class _Gate(nn.Module):
    """`sigmoid(W [x; mean] + b)`, W in two halves: a leading block of one matrix would mix them up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.of_input = nn.Linear(width, width)
        self.of_mean = nn.Linear(width, width, bias=False)

    def forward(self, x_XD: Tensor, mean_XD: Tensor) -> Tensor:
        """The gate, (..., D)."""
        return torch.sigmoid(self.of_input(x_XD) + self.of_mean(mean_XD))


class SsruModule(SubLayerModule):
    """The simpler simple recurrent unit (`Ssru` of the design).

    Args:
        width: D. `state`: what it keeps, the cell.
    """

    def __init__(self, width: int, state: tuple[StateTensor, ...]) -> None:
        super().__init__()
        self.state = state
        self.forget = nn.Linear(width, width)
        self.candidate = nn.Linear(width, width, bias=False)

    def forward(self, x_BXD: Tensor, context: Context) -> tuple[Tensor, None]:
        """As `SubLayerModule.forward`."""
        forget_BXD = torch.sigmoid(self.forget(x_BXD)).to(_exact(x_BXD))
        added_BXD = (1 - forget_BXD) * self.candidate(x_BXD)
        return torch.relu(recurrence(forget_BXD, added_BXD)).to(x_BXD.dtype), None

    def step(self, x_BKD: Tensor, position: int, kept: dict[str, Tensor]) -> Tensor:
        """As `SubLayerModule.step`."""
        forget_BKD = torch.sigmoid(self.forget(x_BKD)).to(_exact(x_BKD))
        cell_BKD = forget_BKD * kept["ssru_cell"][:, :, 0] + (1 - forget_BKD) * self.candidate(x_BKD)
        kept["ssru_cell"] = cell_BKD[:, :, None]
        return torch.relu(cell_BKD).to(x_BKD.dtype)


def recurrence(decay_BTD: Tensor, added_BTD: Tensor) -> Tensor:
    """`c_t = decay_t * c_{t-1} + added_t` along T, with c zero before the first position; (B, T, D).

    One elementwise operation a position, backwards as well: nothing is divided, so that gates near 0 do no
    harm, and nothing but c is kept for the gradient.
    """
    return cast(Callable[..., Tensor], _Recurrence.apply)(decay_BTD, added_BTD)


class _Recurrence(torch.autograd.Function):
    """Of gradients g_t, each at c_t alone, what c_t gets in all is `r_t = g_t + decay_{t+1} r_{t+1}`."""

    @staticmethod
    def forward(ctx: Any, decay_BTD: Tensor, added_BTD: Tensor) -> Tensor:
        cells_BTD = _cumulate(decay_BTD, added_BTD)
        ctx.save_for_backward(decay_BTD, cells_BTD)
        return cells_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BTD: Tensor) -> tuple[Tensor, Tensor]:
        decay_BTD, cells_BTD = ctx.saved_tensors
        # The same recurrence from the last position to the first; the first one reached decays nothing.
        backwards_BTD = decay_BTD.roll(-1, dims=1).flip(1)
        reached_BTD = _cumulate(backwards_BTD, gradient_BTD.flip(1)).flip(1)
        before_BTD = torch.cat([torch.zeros_like(cells_BTD[:, :1]), cells_BTD[:, :-1]], dim=1)
        return reached_BTD * before_BTD, reached_BTD


def _cumulate(decay_BTD: Tensor, added_BTD: Tensor) -> Tensor:
    """The recurrence, position by position; the first position's decay is of no account."""
    decay_TBD, cells_TBD = decay_BTD.transpose(0, 1), added_BTD.transpose(0, 1).clone()
    for t in range(1, len(cells_TBD)):
        cells_TBD[t].addcmul_(decay_TBD[t], cells_TBD[t - 1])
    return cells_TBD.transpose(0, 1)


def _exact(x: Tensor) -> torch.dtype:
    """What sums over many positions are made in: not in half precision."""
    return torch.promote_types(x.dtype, torch.float32)
