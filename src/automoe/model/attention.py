"""Multi-head attention whose heads share one `qkv_dim`, whatever the model width.

Shapes: B sentences, Q queries, M keys, X either of them, D model width, H heads, E = qkv_dim / H,
L positions, C = qkv_dim (of the angles of positions: half the columns).

Q, K and V have a parameter each: leading blocks of one fused matrix would mix them up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017).

    Args:
        query_width: width D of the queries and of the output.
        memory_width: width of what is attended to.
        qkv_dim: the dimension all heads share.
        heads: how many; they divide `qkv_dim`. They change no parameter's shape.
    """

    def __init__(self, query_width: int, memory_width: int, qkv_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(query_width, qkv_dim)
        self.k = nn.Linear(memory_width, qkv_dim)
        self.v = nn.Linear(memory_width, qkv_dim)
        self.out = nn.Linear(qkv_dim, query_width)

    def keys_values(self, memory_BMD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the memory, (B, H, M, E) each; a decoder caches them."""
        return self._split(self.k(memory_BMD)), self._split(self.v(memory_BMD))

    def attend(
        self,
        query_BQD: Tensor,
        keys_BHME: Tensor,
        values_BHME: Tensor,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """The attended values, (B, Q, D).

        Args:
            mask: True where a query may look, broadcastable to (B, H, Q, M); None is everywhere.
            causal: query i sees keys 0..i only (then `mask` is None).
        """
        query_BHQE = self._split(self.q(query_BQD))
        mixed_BHQE = _scaled_dot_product(query_BHQE, keys_BHME, values_BHME, mask, causal)
        out: Tensor = self.out(mixed_BHQE.transpose(1, 2).flatten(2))
        return out

    def over(
        self, query_BQD: Tensor, memory_BMD: Tensor, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attention of the queries over the memory, (B, Q, D); arguments as in `attend`."""
        keys_BHME, values_BHME = self.keys_values(memory_BMD)
        return self.attend(query_BQD, keys_BHME, values_BHME, mask, causal)

    def _split(self, projected_BXC: Tensor) -> Tensor:
        heads_BHXE: Tensor = projected_BXC.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return heads_BHXE


def _scaled_dot_product(
    query_BHQE: Tensor, keys_BHME: Tensor, values_BHME: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    """The values mixed by softmax(Q K' / sqrt(E)), (B, H, Q, E); on a CPU in float32, under autocast too."""
    if query_BHQE.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # The gradient takes seven times as long in bfloat16 as in float32 (torch 2.13).
        with torch.autocast("cpu", enabled=False):
            return _scaled_dot_product(
                query_BHQE.float(), keys_BHME.float(), values_BHME.float(), mask, causal
            )
    return F.scaled_dot_product_attention(
        query_BHQE, keys_BHME, values_BHME, attn_mask=mask, is_causal=causal
    )


def sinusoidal_positions(start: int, length: int, width: int, like: Tensor) -> Tensor:
    """Fixed positions (Vaswani et al., 2017): sines in the even columns, cosines in the odd ones.

    Args:
        start: the first position. `length`: how many. `width`: columns.
        like: its device and type are the result's.

    Returns:
        (length, width)
    """
    positions_L1 = torch.arange(start, start + length, dtype=torch.float32, device=like.device)[:, None]
    half = (width + 1) // 2
    rates_C = 10000.0 ** (-torch.arange(half, dtype=torch.float32, device=like.device) * 2 / width)
    angles_LC = positions_L1 * rates_C
    return torch.stack((angles_LC.sin(), angles_LC.cos()), dim=2).flatten(1)[:, :width].to(like.dtype)
