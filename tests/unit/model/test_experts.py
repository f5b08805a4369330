"""The experts' fast path against the slow obvious reference, in outputs and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.design.architecture import Expert
from automoe.model.experts import MixtureOfExperts
from helpers.reference_mixture import reference_mixture

WIDTH = 6


def build(sizes: tuple[int, ...], top_k: int, seed: int = 0) -> MixtureOfExperts:
    torch.manual_seed(seed)
    return MixtureOfExperts(WIDTH, tuple(map(Expert, sizes)), top_k, "layer")


def outputs_and_gradients(mixture, forward, tokens_ND):
    mixture.zero_grad(set_to_none=True)
    tokens_ND = tokens_ND.clone().requires_grad_()
    out_ND = forward(tokens_ND)
    (out_ND * torch.arange(out_ND.numel()).view_as(out_ND).cos()).sum().backward()
    gradients = {name: p.grad for name, p in mixture.named_parameters()}
    return out_ND.detach(), tokens_ND.grad, gradients


def assert_equal_to_reference(mixture, tokens_ND):
    fast = outputs_and_gradients(mixture, lambda x: mixture(x)[0], tokens_ND)
    slow = outputs_and_gradients(mixture, lambda x: reference_mixture(mixture, x), tokens_ND)
    torch.testing.assert_close(fast[0], slow[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast[1], slow[1], atol=1e-5, rtol=1e-5)
    for name, gradient in slow[2].items():
        if gradient is None:  # an expert without tokens
            assert fast[2][name] is None, name
        else:
            torch.testing.assert_close(fast[2][name], gradient, atol=1e-5, rtol=1e-5)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 3, 8]), min_size=1, max_size=4),
    top_k=st.integers(1, 3),
    tokens=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_fast_path_equals_reference(sizes, top_k, tokens, seed):
    mixture = build(tuple(sizes), min(top_k, len(sizes)), seed)
    assert_equal_to_reference(mixture, torch.randn(tokens, WIDTH))


def force(mixture: MixtureOfExperts, expert: int) -> torch.Tensor:
    """Tokens that all prefer one expert."""
    with torch.no_grad():
        mixture.router.weight.zero_()
        mixture.router.weight[expert] = 1.0
    return torch.rand(9, WIDTH) + 0.1


@pytest.mark.parametrize("top_k", [1, 2])
def test_all_tokens_on_one_expert_and_an_expert_without_any(top_k):
    mixture = build((4, 8, 0), top_k)
    tokens_ND = force(mixture, 1)
    _, routing = mixture(tokens_ND)
    assert routing.tokens_per_expert_E[1] == 9
    assert (routing.tokens_per_expert_E == 0).any()
    assert_equal_to_reference(mixture, tokens_ND)


def test_identity_expert_returns_its_scaled_input():
    mixture = build((4, 0), 1)
    tokens_ND = force(mixture, 1)
    out_ND, _ = mixture(tokens_ND)
    gates_N1 = (tokens_ND @ mixture.router.weight.T).softmax(1)[:, 1:]
    torch.testing.assert_close(out_ND, gates_N1 * tokens_ND)
    assert not list(mixture.experts[1].parameters())


def test_balance_loss_is_switch_s_by_hand():
    mixture = build((4, 4, 4), 1)
    tokens_ND = torch.randn(11, WIDTH)
    _, routing = mixture(tokens_ND)
    probabilities = (tokens_ND @ mixture.router.weight.T).softmax(1).tolist()
    expected = 0.0
    for e in range(3):
        share = sum(max(range(3), key=row.__getitem__) == e for row in probabilities) / 11
        expected += 3 * share * sum(row[e] for row in probabilities) / 11
    assert routing.load_balance_loss.item() == pytest.approx(expected, abs=1e-5)


def test_balance_loss_is_smallest_for_equal_routing():
    mixture = build((4, 4), 1)
    with torch.no_grad():
        mixture.router.weight.zero_()
    _, routing = mixture(torch.randn(10, WIDTH))
    assert routing.load_balance_loss.item() == pytest.approx(1.0)
    collapsed = build((4, 4), 1)
    _, worst = collapsed(10 * force(collapsed, 0))
    assert worst.load_balance_loss.item() > 1.9
