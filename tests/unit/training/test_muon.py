"""Muon on leading blocks: against torch's on whole matrices, a singular value decomposition, and Adam."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automoe.model.transformer import Transformer
from automoe.training import muon as room
from automoe.training.muon import BlockMuon, block_optimizer, hidden_matrices, orthogonalized
from automoe.training.optimizer import BlockAdam
from helpers.reversal import LARGE, VOCABULARY

BETAS, EPS = (0.9, 0.98), 1e-9


class Layers(nn.Module):
    """Linear layers of given (rows, columns), an embedding and a router."""

    def __init__(self, *shapes, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(nn.Linear(columns, rows) for rows, columns in shapes)
        self.router = nn.Linear(5, 3, bias=False)
        self.embedding = nn.Parameter(torch.randn(6, 4))


def set_gradients(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_whole_matrices_equal_torchs_muon_and_the_rest_its_adam():
    shapes = [(24, 16), (16, 24), (24, 16), (10, 10)]
    ours, theirs = Layers(*shapes), Layers(*shapes)
    block_muon = BlockMuon(ours, betas=BETAS, eps=EPS)
    matrices = [layer.weight for layer in theirs.layers]
    muon = torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    others = [p for p in theirs.parameters() if all(p is not matrix for matrix in matrices)]
    adam = torch.optim.Adam(others, betas=BETAS, eps=EPS, fused=True)
    first = [matrix.detach().clone() for matrix in matrices]
    for step in range(5):
        for network in (ours, theirs):
            set_gradients(network, step)
        rate = 0.1 / (step + 1)
        for optimizer in (muon, adam):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        block_muon.step(ours, rate)
        assert all(parameter.grad is None for parameter in ours.parameters())
    for mine, other, start in zip(ours.layers, theirs.layers, first, strict=True):
        change = other.weight - start
        # torch computes in bfloat16 everywhere: eight bits, over five iterations of five steps.
        assert (mine.weight - start - change).norm() < 0.02 * change.norm()
        assert torch.equal(mine.bias, other.bias)
    assert torch.equal(ours.router.weight, theirs.router.weight)
    assert torch.equal(ours.embedding, theirs.embedding)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 3), st.integers(0, 999))
def test_orthogonalized_has_the_singular_vectors_and_singular_values_near_one(rows, columns, count, seed):
    generator = torch.Generator().manual_seed(seed)
    least = min(rows, columns)
    u, _, v = torch.linalg.svd(torch.randn(count, rows, columns, generator=generator), full_matrices=False)
    values = torch.rand(count, least, generator=generator) * 0.9 + 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_dtype", lambda _: torch.float32)
        found = orthogonalized(100 * u @ torch.diag_embed(values) @ v)
    seen = u.mT @ found @ v.mT
    diagonal = torch.diagonal(seen, dim1=-2, dim2=-1)
    assert ((diagonal > 0.5) & (diagonal < 1.5)).all()
    torch.testing.assert_close(seen, torch.diag_embed(diagonal), atol=1e-3, rtol=0)


def test_a_matrix_without_any_gradient_stays():
    assert torch.equal(orthogonalized(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_a_block_moves_alone_by_its_own_momentum():
    large = Layers((6, 5))
    before = large.layers[0].weight.detach().clone()
    optimizer = BlockMuon(large, betas=BETAS, eps=EPS)
    first, second = Layers((6, 5)), Layers((4, 3))
    set_gradients(first, 1)
    set_gradients(second, 2)
    whole_grad, block_grad = (network.layers[0].weight.grad.clone() for network in (first, second))
    optimizer.step(first, 0.1)
    between = large.layers[0].weight.detach().clone()
    optimizer.step(second, 0.1)
    after = large.layers[0].weight.detach()
    assert (between != before).all()
    expected = between.clone()
    momentum = 0.05 * whole_grad
    momentum[:4, :3] = 0.95 * momentum[:4, :3] + 0.05 * block_grad
    update = 0.05 * block_grad + 0.95 * momentum[:4, :3]
    expected[:4, :3] -= 0.1 * 0.2 * 4**0.5 * orthogonalized(update[None])[0]
    torch.testing.assert_close(after, expected)
    assert torch.equal(after[4:], between[4:])
    assert torch.equal(after[:, 3:], between[:, 3:])
    state = optimizer.state[large.layers[0].weight]
    torch.testing.assert_close(state["exp_avg"], momentum)


def test_hidden_matrices_of_a_mixture_are_its_linear_layers_without_routers():
    network = Transformer(LARGE, VOCABULARY)
    routers = {id(module.router.weight) for module in network.modules() if getattr(module, "router", None)}
    assert routers
    linear = {id(module.weight) for module in network.modules() if isinstance(module, nn.Linear)}
    assert {id(parameter) for _, parameter in hidden_matrices(network)} == linear - routers


def test_names_of_optimizers():
    network = Layers((3, 2))
    assert type(block_optimizer("adam", network)) is BlockAdam
    assert type(block_optimizer("muon", network)) is BlockMuon
