"""Router and experts of one feed-forward sub-layer; experts may differ in size.

Shapes: N tokens (padding already left out), D width, E experts, K = top_k, A = N * K assignments of a token
to an expert.

Routing is Switch's (Fedus et al., 2022) for k = 1 and its plain extension for k > 1: a softmax over
all experts, the k most probable ones, each output scaled by its probability (not renormalised, so
that the router learns for every k and means the same for every k that shares its weights).
No token is ever dropped: there is no capacity limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automoe.design.architecture import Expert
from automoe.model.dispatch import Dispatch, choose_dispatch


class Routing(NamedTuple):
    """What one mixture layer did with one batch; padding does not count.

    Attributes:
        layer: e.g. `encoder.0`.
        load_balance_loss: scalar, `E * sum_e f_e * P_e`: 1 when balanced, E when one expert gets all.
        tokens_per_expert_E: int64, how many assignments each expert got; they sum to N * K.
        experts_NK: int64, the experts each token was sent to, most probable first.
        gates_NK: float32, by what each of their outputs was scaled; no gradient goes back through it.
    """

    layer: str
    load_balance_loss: Tensor
    tokens_per_expert_E: Tensor
    experts_NK: Tensor
    gates_NK: Tensor


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

    Attributes:
        choose_dispatch: which way tokens take to their experts; another one is for comparing the ways.
    """

    def __init__(self, width: int, experts: Sequence[Expert], top_k: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.top_k = top_k
        self.choose_dispatch: Callable[[Sequence[ExpertModule], Tensor], Dispatch] = choose_dispatch
        self.experts = nn.ModuleList(ExpertModule(width, expert) for expert in experts)
        self.router = nn.Linear(width, len(experts), bias=False) if len(experts) > 1 else None

    def route(self, tokens_ND: Tensor) -> tuple[Tensor, Tensor, Routing]:
        """Choose experts: gates (N, K), expert indices (N, K), and the statistics.

        Computed in float32 whatever the model's precision, as Switch advises: the choice is a
        comparison of near values.
        """
        assert self.router is not None
        with torch.autocast(tokens_ND.device.type, enabled=False):
            logits_NE = F.linear(tokens_ND.float(), self.router.weight.float())
        probabilities_NE = logits_NE.softmax(dim=1)
        gates_NK, experts_NK = probabilities_NE.topk(self.top_k, dim=1)
        experts_A = experts_NK.flatten()
        # Not bincount, which on a GPU waits for the largest value.
        count_E = experts_A.new_zeros(len(self.experts)).scatter_add(0, experts_A, torch.ones_like(experts_A))
        share_E = count_E / max(1, experts_NK.numel())
        balance = len(self.experts) * (share_E * probabilities_NE.mean(dim=0)).sum()
        routing = Routing(self.name, balance, count_E, experts_NK, gates_NK.detach())
        return gates_NK, experts_NK, routing

    def forward(self, tokens_ND: Tensor) -> tuple[Tensor, Routing | None]:
        """The mixture of (N, D) tokens, (N, D), N at least 1; None instead of routing for one expert.

        An expert without tokens gets no gradient on a CPU, so that the optimizer leaves it alone. On a GPU,
        in the ways that do not wait for the routing (`automoe.model.dispatch`), it gets a zero one: its
        moments in Adam decay, and its weights drift on the old momentum.
        """
        if self.router is None:
            return self.experts[0](tokens_ND), None
        gates_NK, _, routing = self.route(tokens_ND)
        experts = cast(list[ExpertModule], list(self.experts))
        mix = self.choose_dispatch(experts, tokens_ND)
        return mix(experts, tokens_ND, gates_NK, routing), routing
