"""Adam on leading blocks against an element-by-element one, and on whole parameters against torch's."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automoe.training import optimizer as room
from automoe.training.optimizer import BlockAdam

BETAS, EPS = (0.9, 0.98), 1e-9


class Network(nn.Module):
    """Parameters of given shapes, with normal values."""

    def __init__(self, shapes, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for index, shape in enumerate(shapes):
            self.register_parameter(f"p{index}", nn.Parameter(torch.randn(shape, generator=generator)))


def set_gradients(network, generator):
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_whole_parameters_equal_torch_to_the_last_bit():
    shapes = [(7, 5), (11,), (300, 900)]
    ours, theirs = Network(shapes), Network(shapes)
    block_adam = BlockAdam(ours, betas=BETAS, eps=EPS)
    adam = torch.optim.Adam(theirs.parameters(), betas=BETAS, eps=EPS, fused=True)
    for step in range(6):
        for network in (ours, theirs):
            set_gradients(network, torch.Generator().manual_seed(step))
        if step == 3:
            ours.p1.grad = theirs.p1.grad = None
        adam.param_groups[0]["lr"] = rate = 0.1 / (step + 1)
        adam.step()
        block_adam.step(ours, rate)
        assert all(parameter.grad is None for parameter in ours.parameters())
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
        for key, value in adam.state[other].items():
            assert torch.equal(block_adam.state[mine][key], value), key


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), chunk=st.integers(1, 40), seed=st.integers(0, 999))
def test_blocks_equal_an_adam_of_single_elements(rows, columns, chunk, seed):
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    network = Network([(rows, columns), (columns,)])
    expected = {name: p.detach().double().clone() for name, p in network.named_parameters()}
    moments = {name: torch.zeros(2, *value.shape, dtype=torch.float64) for name, value in expected.items()}
    optimizer = BlockAdam(network, betas=BETAS, eps=EPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "CHUNK_ELEMENTS", chunk)
        for step in range(1, 5):
            height, width = rng.randint(1, rows), rng.randint(1, columns)
            small = Network([(height, width), (width,)])
            set_gradients(small, generator)
            for name, parameter in small.named_parameters():
                for index in torch.cartesian_prod(*map(torch.arange, parameter.shape)).view(
                    -1, parameter.dim()
                ):
                    at = tuple(index.tolist())
                    g, (m, v) = parameter.grad[at].item(), moments[name]
                    m[at] = 0.9 * m[at] + 0.1 * g
                    v[at] = 0.98 * v[at] + 0.02 * g * g
                    update = (m[at] / (1 - 0.9**step)) / (math.sqrt(v[at] / (1 - 0.98**step)) + EPS)
                    expected[name][at] -= 0.05 * update
            optimizer.step(small, 0.05)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.double(), expected[name], rtol=1e-4, atol=1e-5)
        state = optimizer.state[parameter]
        for key, value in zip(("exp_avg", "exp_avg_sq"), moments[name], strict=True):
            torch.testing.assert_close(state[key].double(), value, rtol=1e-4, atol=1e-6)
        assert state["step"] == 4


def test_what_has_no_gradient_is_left_alone():
    network = Network([(4, 4), (3,)])
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = BlockAdam(network, betas=BETAS, eps=EPS)
    for block in ((4, 4), (2, 3)):
        small = Network([block])
        set_gradients(small, torch.Generator().manual_seed(1))
        at_first = network.p0.detach().clone()
        optimizer.step(small, 0.1)
    assert torch.equal(network.p1, before["p1"])
    assert network.p1 not in optimizer.state
    # Momentum of the first, larger block does not move what the second one leaves out.
    changed = network.p0 != at_first
    assert changed[:2, :3].all()
    assert not changed[2:].any()
    assert not changed[:, 3:].any()
