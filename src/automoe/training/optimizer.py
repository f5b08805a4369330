"""Adam for shared weights: only the leading blocks that a sub-network trained are updated."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from automoe.model.sharing import leading_block

# Elements copied at once for a block that is not contiguous: with moments and gradient 4 MiB, a cache's size.
CHUNK_ELEMENTS = 1 << 18


class BlockAdam:
    """Adam (Kingma & Ba, 2015) over a supernet's parameters, given gradients of a sub-network.

    Weights outside the sub-network's leading blocks, and their moments, stay as they are, as if they were
    parameters without a gradient: they neither decay nor drift on old momentum. Bias correction counts the
    updates of each parameter, of whichever block of it. For a whole parameter this is `torch.optim.Adam`
    with `fused=True`, to the last bit.

    Args:
        network: owns the parameters (`Supernet.network`).
        betas, eps: as in `torch.optim.Adam`.

    Attributes:
        state: `step`, `exp_avg` and `exp_avg_sq` of each parameter of `network` updated so far, full-size.
    """

    def __init__(self, network: nn.Module, *, betas: tuple[float, float], eps: float) -> None:
        self.parameters = dict(network.named_parameters())
        self.betas = betas
        self.eps = eps
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        self._exp_avg = _moments(self.parameters)
        adams = {name: p for name, p in self.parameters.items() if self._is_adams(name, p)}
        self._exp_avg_sq = _moments(adams)

    def _is_adams(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter gets Adam's updates."""
        return True

    @torch.no_grad()
    def step(self, subnetwork: nn.Module, rate: float) -> None:
        """Update what has a gradient, and use it up: `grad` is None afterwards, its memory free."""
        whole: list[tuple[Tensor, ...]] = []
        copied: list[tuple[Tensor, Tensor]] = []
        for name, parameter in subnetwork.named_parameters():
            if parameter.grad is None:
                continue
            grad, state = parameter.grad.contiguous(), self._state(name)
            parameter.grad = None
            full = (self.parameters[name].detach(), state["exp_avg"], state["exp_avg_sq"])
            blocks = [leading_block(x, grad.shape) for x in full]
            # The fused kernel takes its operands for contiguous, whatever their strides say.
            if all(block.is_contiguous() for block in blocks):
                whole.append((*blocks, grad, state["step"]))
            elif grad.is_cuda:
                copies = [block.contiguous() for block in blocks]
                copied += zip(blocks, copies, strict=True)
                whole.append((*copies, grad, state["step"]))
            else:
                self._update_in_chunks(blocks, grad, state["step"], rate)
        if whole:
            # Together: on a GPU one kernel for all of them.
            weights, exp_avgs, exp_avg_sqs, grads, steps = (list(part) for part in zip(*whole, strict=True))
            self._fused(weights, exp_avgs, exp_avg_sqs, grads, steps, rate)
        for block, copy in copied:
            block.copy_(copy)

    def _state(self, name: str) -> dict[str, Tensor]:
        parameter = self.parameters[name]
        if parameter not in self.state:
            exp_avg, exp_avg_sq = self._exp_avg[name], self._exp_avg_sq[name]
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            self.state[parameter] = {"step": step, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
        return self.state[parameter]

    def _update_in_chunks(self, blocks: list[Tensor], grad: Tensor, step: Tensor, rate: float) -> None:
        rows = max(1, CHUNK_ELEMENTS // grad[0].numel())
        for *parts, grad_part in zip(*(x.split(rows) for x in (*blocks, grad)), strict=True):
            copies = [part.contiguous() for part in parts]
            weight, exp_avg, exp_avg_sq = copies
            self._fused([weight], [exp_avg], [exp_avg_sq], [grad_part], [step.clone()], rate)
            for part, copy in zip(parts, copies, strict=True):
                part.copy_(copy)
        step += 1

    def _fused(
        self,
        weights: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        grads: list[Tensor],
        steps: list[Tensor],
        rate: float,
    ) -> None:
        """Update in place, `steps` included."""
        adam(
            weights,
            grads,
            exp_avgs,
            exp_avg_sqs,
            [],
            steps,
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=rate,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )


def _moments(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Zeros like each parameter, in one piece, of which the system maps what is written to.

    So on a CPU an untrained block costs no memory.
    """
    if not parameters:
        return {}
    sizes = [parameter.numel() for parameter in parameters.values()]
    parts = _lazy_zeros(sum(sizes)).to(next(iter(parameters.values())).device).split(sizes)
    return {
        name: part.view_as(parameter)
        for (name, parameter), part in zip(parameters.items(), parts, strict=True)
    }


def _lazy_zeros(size: int) -> Tensor:
    """Zeros whose memory is mapped when first written to, page by page; `torch.zeros` writes at once."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return torch.frombuffer(mmap.mmap(-1, size * 4, flags), dtype=torch.float32)
