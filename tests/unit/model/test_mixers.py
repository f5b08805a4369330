"""Average attention and the SSRU against their formulas, written out one position at a time."""

import pytest
import torch

from automoe.design.architecture import AverageAttention, Ssru
from automoe.model.mixers import AverageAttentionModule, SsruModule, recurrence
from automoe.model.sublayers import Context

B, T, D = 3, 7, 4
CONTEXT = Context(causal=True, visible=None, valid_N=None)


def inputs(seed: int, positions: int = T, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(B, positions, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def average_attention() -> AverageAttentionModule:
    torch.manual_seed(0)
    return AverageAttentionModule(D, AverageAttention().decoder_state(D, 8)).double()


def ssru() -> SsruModule:
    torch.manual_seed(0)
    return SsruModule(D, Ssru().decoder_state(D, 8)).double()


def by_the_formula_of_average_attention(module: AverageAttentionModule, x_TD: torch.Tensor) -> torch.Tensor:
    found = []
    for t in range(len(x_TD)):
        y, g = x_TD[t], sum(x_TD[: t + 1]) / (t + 1)
        i, f = (
            torch.sigmoid(gate.of_input.weight @ y + gate.of_mean.weight @ g + gate.of_input.bias)
            for gate in (module.input_gate, module.mean_gate)
        )
        found.append(i * y + f * g)
    return torch.stack(found)


def by_the_formula_of_ssru(module: SsruModule, x_TD: torch.Tensor) -> torch.Tensor:
    cell, found = torch.zeros(D, dtype=x_TD.dtype), []
    for x in x_TD:
        f = torch.sigmoid(module.forget.weight @ x + module.forget.bias)
        cell = f * cell + (1 - f) * (module.candidate.weight @ x)
        found.append(cell.clamp(min=0))
    return torch.stack(found)


KINDS = {
    "average attention": (average_attention, by_the_formula_of_average_attention),
    "ssru": (ssru, by_the_formula_of_ssru),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_position_is_as_the_formula_says(kind: str) -> None:
    make, formula = KINDS[kind]
    module, x_BTD = make(), inputs(1)
    expected_BTD = torch.stack([formula(module, x_TD) for x_TD in x_BTD])
    torch.testing.assert_close(module(x_BTD, CONTEXT)[0], expected_BTD)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions", [1, T])
def test_gradients_are_those_of_the_formula(kind: str, positions: int) -> None:
    make, formula = KINDS[kind]
    gradients = []
    for compute in (lambda m, x: m(x, CONTEXT)[0], lambda m, x: torch.stack([formula(m, row) for row in x])):
        module, x_BTD = make(), inputs(2, positions).requires_grad_()
        weights_BTD = inputs(3, positions)
        (compute(module, x_BTD) * weights_BTD).sum().backward()
        gradients.append([x_BTD.grad, *(p.grad for p in module.parameters())])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("sentences", [1, B])
def test_the_recurrence_and_its_gradient(sentences: int) -> None:
    decay, added = torch.sigmoid(inputs(4))[:sentences], inputs(5)[:sentences]
    before = added.clone()
    cells = recurrence(decay, added)
    assert torch.equal(added, before)  # what it is given stays as it is
    cell = torch.zeros(sentences, D, dtype=torch.float64)
    for t in range(T):
        cell = decay[:, t] * cell + added[:, t]
        torch.testing.assert_close(cells[:, t], cell)
    assert torch.autograd.gradcheck(recurrence, (decay.requires_grad_(), added.requires_grad_()))


def test_a_shut_gate_forgets_without_dividing_by_it() -> None:
    decay = torch.zeros(B, T, D, dtype=torch.float64).requires_grad_()
    added = inputs(6).requires_grad_()
    cells = recurrence(decay, added)
    assert torch.equal(cells, added)
    cells.sum().backward()
    assert torch.equal(added.grad, torch.ones_like(added))
    assert torch.isfinite(decay.grad).all()


def at_once(module: AverageAttentionModule | SsruModule, x_BTD: torch.Tensor) -> torch.Tensor:
    return module(x_BTD, CONTEXT)[0]


def step_by_step(module: AverageAttentionModule | SsruModule, x_BTD: torch.Tensor) -> torch.Tensor:
    """Each sentence as one beam."""
    kept = {state.name: x_BTD.new_zeros(len(x_BTD), 1, state.heads, state.size) for state in module.state}
    steps = [module.step(x_BTD[:, t : t + 1], t, kept) for t in range(x_BTD.shape[1])]
    return torch.cat(steps, dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compute", [at_once, step_by_step])
def test_sums_are_not_made_in_half_precision(kind: str, compute) -> None:
    """Of a thousand equal inputs the mean, and the cell they settle at, is what one of them says."""
    make, _ = KINDS[kind]
    module = make().to(torch.bfloat16)
    x_BTD = inputs(7, 1, torch.bfloat16).expand(B, 1000, D)
    with torch.no_grad():
        found_BTD = compute(module, x_BTD)
    assert found_BTD.dtype == torch.bfloat16
    settled_BD = found_BTD[:, 0] if kind == "average attention" else torch.relu(module.candidate(x_BTD[:, 0]))
    torch.testing.assert_close(found_BTD[:, -1], settled_BD, rtol=0.02, atol=0.01)
