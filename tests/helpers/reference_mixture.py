"""A mixture of experts by its definition: the oracle of the fast path.

Shapes: N tokens, D width, E experts.
"""

import torch
from torch import Tensor

from automoe.model.experts import MixtureOfExperts


def reference_mixture(mixture: MixtureOfExperts, tokens_ND: Tensor) -> Tensor:
    """The definition, slow and obvious: token by token, expert by expert."""
    if mixture.router is None:
        out: Tensor = mixture.experts[0](tokens_ND)
        return out
    rows = []
    for token_D in tokens_ND:
        probability_E = torch.softmax(mixture.router.weight @ token_D, dim=0)
        best = sorted(range(len(mixture.experts)), key=lambda e: -probability_E[e].item())[: mixture.top_k]
        rows.append(torch.stack([probability_E[e] * mixture.experts[e](token_D) for e in best]).sum(0))
    return torch.stack(rows)
