"""How the tokens of a mixture reach their experts: three ways to one result, and which is taken when.

Shapes: N tokens, D width, E experts, K = top_k, A = N * K assignments of a token to an expert, G experts that
are FFNs (not the identity), H the largest FFN size with a constant unit, rounded up, P the width with a
constant column, rounded up, Q the width rounded up.

`sorted_blocks` gives each expert its own tokens. Their numbers are shapes, so on a GPU the host waits for the
router in every mixture layer, and cannot queue ahead. `grouped_product` and `every_expert` have shapes that
do not depend on the routing: nothing in them, nor in their backward passes, waits. Nobody then knows on the
host which experts got no tokens: their gradients are zeros instead of None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from automoe.model.experts import ExpertModule, Routing

# Of a grouped product's strides; the kernels load matrices by TMA.
ALIGNMENT_BYTES = 16
# Compute capability of the GPUs whose grouped product (PyTorch 2.13: bfloat16 alone) leaves the offsets where
# they are. Elsewhere it is a loop of the host's; on 10.0 an expert without tokens may get garbage for its
# gradient (https://github.com/pytorch/pytorch/issues/172439).
GROUPED_CAPABILITY = (9, 0)
# Below this, computing every expert on every token costs a GPU less than the launches it takes anyway.
EVERY_EXPERT_FLOPS = 4e9

Dispatch: TypeAlias = Callable[[Sequence["ExpertModule"], Tensor, Tensor, "Routing"], Tensor]
"""Of (experts, tokens_ND, gates_NK, routing), the sum of each token's gated expert outputs, (N, D)."""


def choose_dispatch(experts: Sequence[ExpertModule], tokens_ND: Tensor) -> Dispatch:
    """The way that should be fastest for these tokens, from what the host knows without waiting.

    On a CPU nothing waits, so `sorted_blocks`: the fewest FLOPs. On a GPU `every_expert` when that is little
    work, as in decoding, whose launches and not FLOPs take the time; else `grouped_product` in bfloat16 where
    PyTorch has a kernel for it, at most the FLOPs of a dense FFN of the largest expert's size for each
    assignment. What is left, float32 and other GPUs, waits: it would take E / K times the FLOPs not to.
    """
    if tokens_ND.device.type != "cuda":
        return sorted_blocks
    tokens, width = tokens_ND.shape
    if 4 * tokens * width * sum(expert.size for expert in experts) <= EVERY_EXPERT_FLOPS:
        return every_expert
    capability = torch.cuda.get_device_capability(tokens_ND.device)
    if _product_dtype(tokens_ND) == torch.bfloat16 and capability == GROUPED_CAPABILITY:
        return grouped_product
    return sorted_blocks


def sorted_blocks(
    experts: Sequence[ExpertModule], tokens_ND: Tensor, gates_NK: Tensor, routing: Routing
) -> Tensor:
    """Sort the assignments by expert; each expert then works on one contiguous block. Waits for a GPU."""
    order_A = routing.experts_NK.flatten().argsort(stable=True)
    rows_A = order_A // gates_NK.shape[1]
    blocks = tokens_ND[rows_A].split(routing.tokens_per_expert_E.tolist())
    # An expert without tokens is not called, so that it gets no gradient instead of a zero one.
    outputs = [expert(block) for expert, block in zip(experts, blocks, strict=True) if len(block)]
    mixed_AD = torch.cat(outputs) * gates_NK.flatten()[order_A, None].to(tokens_ND.dtype)
    mixed_AD = mixed_AD.to(tokens_ND.dtype)
    return torch.zeros_like(tokens_ND).index_add(0, rows_A, mixed_AD)


def every_expert(
    experts: Sequence[ExpertModule], tokens_ND: Tensor, gates_NK: Tensor, routing: Routing
) -> Tensor:
    """Every expert on every token, with gate 0 where the token was not sent: E / K times the FLOPs."""
    gates_NE = gates_NK.new_zeros(len(tokens_ND), len(experts)).scatter(1, routing.experts_NK, gates_NK)
    gates_NE = gates_NE.to(tokens_ND.dtype)
    mixed_ND = torch.zeros_like(tokens_ND)
    for expert, gate_N1 in zip(experts, gates_NE.split(1, dim=1), strict=True):
        mixed_ND = mixed_ND + expert(tokens_ND) * gate_N1
    return mixed_ND


def grouped_product(
    experts: Sequence[ExpertModule], tokens_ND: Tensor, gates_NK: Tensor, routing: Routing
) -> Tensor:
    """All experts in two grouped matrix products, their weights padded to the largest and stacked.

    As under autocast, the products run in its type where it is on, else in the tokens'. Identity experts are
    sorted last and lie outside the products; at least one expert must be an FFN.

    Raises:
        RuntimeError: the type is none that `torch.nn.functional.grouped_mm` takes (float64).
    """
    (tokens, width), top_k, dtype = tokens_ND.shape, gates_NK.shape[1], _product_dtype(tokens_ND)
    sizes = [expert.size for expert in experts]
    experts_A = routing.experts_NK.flatten()
    identity_A = torch.zeros_like(experts_A, dtype=torch.bool)
    for index, size in enumerate(sizes):
        if not size:
            identity_A = identity_A | (experts_A == index)
    order_A = experts_A.masked_fill(identity_A, len(experts)).argsort(stable=True)
    place_A = torch.empty_like(order_A).index_copy(
        0, order_A, torch.arange(len(order_A), device=order_A.device)
    )
    counts = [count for count, size in zip(routing.tokens_per_expert_E.unbind(), sizes, strict=True) if size]
    ends_G = torch.stack(counts).cumsum(0, dtype=torch.int32)

    up_GHP, down_GQH = _stacked([expert for expert in experts if expert.size], width, dtype)
    # Every added column is 1, of which the stacked weights take one as the bias's and none else.
    tokens_NP = F.pad(tokens_ND.to(dtype), (0, up_GHP.shape[2] - width), value=1.0)
    tokens_AP = tokens_NP[:, None].expand(-1, top_k, -1).flatten(0, 1)
    # A permutation by index_copy: its gradient is a gather, where a gather's would add atomically.
    sorted_AP = torch.empty_like(tokens_AP).index_copy(0, place_A, tokens_AP)
    if 0 in sizes:
        # Rows past the last offset are never written, in the product's gradient neither: shut them out.
        outside_A1 = torch.arange(len(place_A), device=place_A.device)[:, None] >= ends_G[-1:]
        sorted_AP = sorted_AP.masked_fill(outside_A1, 0)
    hidden_AH = F.relu(F.grouped_mm(sorted_AP, up_GHP.transpose(1, 2), offs=ends_G))
    out_AD = F.grouped_mm(hidden_AH, down_GQH.transpose(1, 2), offs=ends_G)
    if out_AD.shape[1] > width:
        out_AD = out_AD[:, :width]
    out_NKD = torch.empty_like(out_AD).index_copy(0, order_A, out_AD).view(tokens, top_k, width)
    if 0 in sizes:
        out_NKD = torch.where(identity_A.view(tokens, top_k, 1), tokens_ND[:, None], out_NKD)
    return (out_NKD * gates_NK[:, :, None].to(tokens_ND.dtype)).sum(dim=1).to(tokens_ND.dtype)


def _product_dtype(tokens_ND: Tensor) -> torch.dtype:
    device = tokens_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tokens_ND.dtype


def _stacked(ffns: Sequence[ExpertModule], width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The weights of both products, (G, H, P) and (G, Q, H), zero outside the experts' own.

    A grouped product takes no bias: the biases are one more column, on an input that is always 1. For the
    second product that input is the unit of the hidden layer behind the largest expert's.
    """
    largest = max(ffn.size for ffn in ffns)
    multiple = ALIGNMENT_BYTES // dtype.itemsize
    H, P, Q = (-(-size // multiple) * multiple for size in (largest + 1, width + 1, width))
    like = ffns[0].up.weight
    up_GHP = like.new_zeros(len(ffns), H, P, dtype=dtype)
    up_GHP[:, largest, width].fill_(1)
    down_GQH = like.new_zeros(len(ffns), Q, H, dtype=dtype)
    up: list[tuple[_Place, Tensor]] = []
    down: list[tuple[_Place, Tensor]] = []
    for index, ffn in enumerate(ffns):
        own, whole = slice(ffn.size), slice(width)
        up += [((index, own, whole), ffn.up.weight), ((index, own, width), ffn.up.bias)]
        down += [((index, whole, own), ffn.down.weight), ((index, whole, largest), ffn.down.bias)]
    return _write(up_GHP, up), _write(down_GQH, down)


_Place: TypeAlias = tuple[int, slice, slice | int]


def _write(stack: Tensor, parts: Sequence[tuple[_Place, Tensor]]) -> Tensor:
    places, tensors = zip(*parts, strict=True)
    return _APPLY(stack, places, *tensors)


class _Write(torch.autograd.Function):
    """Write the parts to their places in the stack; as assignments, each would copy the stack's gradient."""

    @staticmethod
    def forward(ctx: Any, stack: Tensor, places: Sequence[_Place], *parts: Tensor) -> Tensor:
        ctx.mark_dirty(stack)
        ctx.places = places
        ctx.parts = [(part.shape, part.dtype) for part in parts]
        torch._foreach_copy_([stack[place] for place in places], list(parts))
        return stack

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = [grad.new_empty(shape, dtype=dtype) for shape, dtype in ctx.parts]
        torch._foreach_copy_(grads, [grad[place] for place in ctx.places])
        return None, None, *grads


_APPLY = cast(Callable[..., Tensor], _Write.apply)
