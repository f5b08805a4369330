"""The lookup with a gradient of rows against torch's embedding of a slice."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from automoe.model.embedding import lookup


def plain(weight_VC, tokens_BS, width):
    return F.embedding(tokens_BS, weight_VC[:, :width])


@pytest.mark.parametrize("output_layer", [True, False])
def test_values_and_gradients_equal_torch(output_layer):
    """Two lookups of different width, two backward passes that add up, with and without a dense gradient."""
    tokens_BS = torch.tensor([[1, 5, 1], [0, 5, 6]])
    values = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    gradients = []
    for function in (lookup, plain):
        weight = nn.Parameter(values.clone())
        for _ in range(2):
            narrow, wide = function(weight, tokens_BS, 3), function(weight, tokens_BS.flip(1), 5)
            loss = (narrow.sin().sum(2) * wide.exp().sum(2)).sum()
            if output_layer:
                loss = loss + (narrow @ weight[:, :3].T).square().sum()
            loss.backward()
        gradients.append(weight.grad)
        assert torch.equal(wide, values[tokens_BS.flip(1)])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_without_gradients_nothing_is_recorded():
    weight = nn.Parameter(torch.ones(3, 2))
    with torch.no_grad():
        assert not lookup(weight, torch.tensor([[1]]), 2).requires_grad
    assert not lookup(weight.requires_grad_(False), torch.tensor([[1]]), 2).requires_grad
