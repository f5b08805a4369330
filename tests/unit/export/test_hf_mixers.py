"""What the mixers of an exported Hugging Face folder carry on from position to position."""

import pytest
import torch
from transformers.cache_utils import DynamicCache

from automoe.export.hf_template.modeling_automoe import AverageAttention, Ssru

B, T, D = 2, 1000, 4


@pytest.mark.parametrize("kind", [AverageAttention, Ssru])
def test_sums_are_not_made_in_half_precision(kind: type[AverageAttention | Ssru]) -> None:
    """A thousand equal inputs, one a call as when translating: what float64 says of them, to the rounding."""
    torch.manual_seed(0)
    exact = kind(D).double()
    half = kind(D).to(torch.bfloat16)
    half.load_state_dict(exact.state_dict())
    exact.load_state_dict(half.state_dict())
    x_B1D = torch.randn(B, 1, D).to(torch.bfloat16)
    cache = DynamicCache()
    with torch.no_grad():
        for t in range(T):
            found_B1D = half.mix(x_B1D, torch.ones(1, t + 1, dtype=torch.bool), cache, 0)
        whole = torch.ones(T, T, dtype=torch.bool)
        expected_BTD = exact.mix(x_B1D.double().expand(B, T, D), whole, DynamicCache(), 0)
    assert found_B1D.dtype == torch.bfloat16
    torch.testing.assert_close(found_B1D[:, 0].double(), expected_BTD[:, -1], rtol=0.02, atol=0.01)
