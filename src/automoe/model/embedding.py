"""Looking up tokens in a matrix that other layers share.

Shapes: B sentences, S tokens, V vocabulary, C columns, D <= C width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def lookup(weight_VC: Tensor, tokens_BS: Tensor, width: int) -> Tensor:
    """The leading `width` columns of the tokens' rows, (B, S, D); `weight_VC` is a parameter.

    `backward` adds the rows' gradients to `weight_VC.grad` in place: as a part of the graph, each lookup
    would fill and add a dense gradient of the whole matrix. So `torch.autograd.grad` does not see a lookup.
    """
    x_BSD = F.embedding(tokens_BS, weight_VC.detach()[:, :width])
    if torch.is_grad_enabled() and weight_VC.requires_grad:

        def add_rows(grad_BSD: Tensor) -> None:
            if weight_VC.grad is None:
                weight_VC.grad = torch.zeros_like(weight_VC, memory_format=torch.contiguous_format)
            weight_VC.grad[:, :width].index_add_(0, tokens_BS.flatten(), grad_BSD.flatten(0, 1))

        x_BSD.requires_grad_().register_hook(add_rows)
    return x_BSD
