"""Router, dispatch and experts of one feed-forward sub-layer; experts may differ in size.

Shapes: N tokens (padding already left out), D width, E experts, K = top_k, A = N * K assignments of a token
to an expert.

Routing is Switch's (Fedus et al., 2022) for k = 1 and its plain extension for k > 1: a softmax over
all experts, the k most probable ones, each output scaled by its probability (not renormalised, so
that the router learns for every k and means the same for every k that shares its weights).
No token is ever dropped: there is no capacity limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automoe.design.architecture import Expert


class Routing(NamedTuple):
    """What one mixture layer did with one batch; padding does not count.

    Attributes:
        layer: e.g. `encoder.0`.
        load_balance_loss: scalar, `E * sum_e f_e * P_e`: 1 when balanced, E when one expert gets all.
        tokens_per_expert_E: int64, how many assignments each expert got; they sum to N * K.
        experts_NK: int64, the experts each token was sent to, most probable first.
    """

    layer: str
    load_balance_loss: Tensor
    tokens_per_expert_E: Tensor
    experts_NK: Tensor


class ExpertModule(nn.Module):
    """A feed-forward network with ReLU, `down(relu(up(x)))`; size 0 is the identity, without parameters."""

    def __init__(self, width: int, expert: Expert) -> None:
        super().__init__()
        self.size = expert.size
        if expert.size:
            self.up = nn.Linear(width, expert.size)
            self.down = nn.Linear(expert.size, width)

    def forward(self, tokens_ND: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        if not self.size:
            return tokens_ND
        out: Tensor = self.down(F.relu(self.up(tokens_ND)))
        return out


class MixtureOfExperts(nn.Module):
    """The feed-forward sub-layer: one expert is a dense FFN, several have a router.

    Args:
        width: D. `experts`: what each is. `top_k`: experts a token.
        name: the layer's name in its `Routing`.
    """

    def __init__(self, width: int, experts: Sequence[Expert], top_k: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.top_k = top_k
        self.experts = nn.ModuleList(ExpertModule(width, expert) for expert in experts)
        self.router = nn.Linear(width, len(experts), bias=False) if len(experts) > 1 else None

    def route(self, tokens_ND: Tensor) -> tuple[Tensor, Tensor, Routing]:
        """Choose experts: gates (N, K), expert indices (N, K), and the statistics.

        Computed in float32 whatever the model's precision, as Switch advises: the choice is a
        comparison of near values.
        """
        assert self.router is not None
        logits_NE = F.linear(tokens_ND.float(), self.router.weight.float())
        probabilities_NE = logits_NE.softmax(dim=1)
        gates_NK, experts_NK = probabilities_NE.topk(self.top_k, dim=1)
        count_E = torch.bincount(experts_NK.flatten(), minlength=len(self.experts))
        share_E = count_E / max(1, experts_NK.numel())
        balance = len(self.experts) * (share_E * probabilities_NE.mean(dim=0)).sum()
        return gates_NK, experts_NK, Routing(self.name, balance, count_E, experts_NK)

    def forward(self, tokens_ND: Tensor) -> tuple[Tensor, Routing | None]:
        """The mixture of (N, D) tokens, (N, D), N at least 1; None instead of routing for one expert."""
        if self.router is None:
            return self.experts[0](tokens_ND), None
        gates_NK, experts_NK, routing = self.route(tokens_ND)
        # Sort the N * K assignments by expert: each expert then works on one contiguous block.
        order_A = experts_NK.flatten().argsort(stable=True)
        rows_A = order_A // self.top_k
        blocks = tokens_ND[rows_A].split(routing.tokens_per_expert_E.tolist())
        # An expert without tokens is not called, so that it gets no gradient instead of a zero one.
        outputs = [expert(block) for expert, block in zip(self.experts, blocks, strict=True) if len(block)]
        mixed_AD = torch.cat(outputs) * gates_NK.flatten()[order_A, None].to(tokens_ND.dtype)
        mixed_AD = mixed_AD.to(tokens_ND.dtype)
        return torch.zeros_like(tokens_ND).index_add(0, rows_A, mixed_AD), routing
