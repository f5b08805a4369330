"""The ways of tokens to their experts against the slow obvious reference, in outputs and gradients."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from automoe.design.architecture import Expert
from automoe.model.dispatch import choose_dispatch, every_expert, grouped_product, sorted_blocks
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
    (out_ND * torch.arange(out_ND.numel(), device=out_ND.device).view_as(out_ND).cos()).sum().backward()
    gradients = {name: p.grad for name, p in mixture.named_parameters()}
    return out_ND.detach(), tokens_ND.grad, gradients


def assert_equal_to_reference(mixture, tokens_ND, unused_gets="no gradient"):
    fast = outputs_and_gradients(mixture, lambda x: mixture(x)[0], tokens_ND)
    slow = outputs_and_gradients(mixture, lambda x: reference_mixture(mixture, x), tokens_ND)
    torch.testing.assert_close(fast[0], slow[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast[1], slow[1], atol=1e-5, rtol=1e-5)
    for name, gradient in slow[2].items():
        if gradient is not None:
            torch.testing.assert_close(fast[2][name], gradient, atol=1e-5, rtol=1e-5)
        elif unused_gets == "no gradient":  # an expert without tokens
            assert fast[2][name] is None, name
        else:
            assert fast[2][name].count_nonzero() == 0, name


mixtures = {
    "sizes": st.lists(st.sampled_from([0, 1, 3, 8]), min_size=1, max_size=4),
    "top_k": st.integers(1, 3),
    "tokens": st.integers(1, 12),
    "seed": st.integers(0, 1000),
}


@given(**mixtures)
@settings(max_examples=60)
def test_fast_path_equals_reference(sizes, top_k, tokens, seed):
    mixture = build(tuple(sizes), min(top_k, len(sizes)), seed)
    assert_equal_to_reference(mixture, torch.randn(tokens, WIDTH))


@pytest.mark.parametrize("way", [every_expert, grouped_product])
@given(**mixtures)
@settings(max_examples=60)
def test_ways_that_do_not_wait_equal_reference_with_zero_gradients(way, sizes, top_k, tokens, seed):
    assume(any(sizes))
    mixture = build(tuple(sizes), min(top_k, len(sizes)), seed)
    mixture.choose_dispatch = lambda *_: way
    unused_gets = "no gradient" if mixture.router is None else "zeros"
    assert_equal_to_reference(mixture, torch.randn(tokens, WIDTH), unused_gets)


@pytest.mark.parametrize("width", [8, 13])
@pytest.mark.parametrize("way", [sorted_blocks, every_expert, grouped_product])
@pytest.mark.parametrize(("sizes", "top_k"), [((8, 3, 0, 16, 0), 1), ((8, 3, 0, 16, 0), 3), ((5, 5, 5), 2)])
def test_ways_under_bfloat16_autocast_stay_near_float32(way, sizes, top_k, width):
    torch.manual_seed(1)
    mixture = MixtureOfExperts(width, tuple(map(Expert, sizes)), top_k, "layer")
    tokens_ND = torch.randn(50, width)

    def mix(x_ND):
        # Routed in float32: another choice between near experts is another function, not a rounding.
        gates_NK, _, routing = mixture.route(x_ND)
        with torch.autocast("cpu", torch.bfloat16):
            return way(list(mixture.experts), x_ND, gates_NK, routing)

    rounded = outputs_and_gradients(mixture, mix, tokens_ND)
    exact = outputs_and_gradients(mixture, lambda x: reference_mixture(mixture, x), tokens_ND)
    assert rounded[0].dtype == torch.float32
    pairs = [*zip(rounded[:2], exact[:2], strict=True), *((rounded[2][n], exact[2][n]) for n in exact[2])]
    for got, expected in pairs:
        assert (got - expected).norm() <= 0.02 * expected.norm()


@pytest.fixture
def fresh_memory_is_nan():
    """PyTorch's deterministic mode fills memory that it hands out unwritten."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("fresh_memory_is_nan")
def test_rows_that_the_grouped_product_leaves_unwritten_reach_nothing():
    assert torch.empty(3).isnan().all()
    mixture = build((0, 8, 3, 0), 2)
    tokens_ND = torch.randn(20, WIDTH)
    routing = mixture(tokens_ND)[1]
    assert routing.tokens_per_expert_E.count_nonzero() == 4
    mixture.choose_dispatch = lambda *_: grouped_product
    assert_equal_to_reference(mixture, tokens_ND, "zeros")


def test_grouped_product_of_leading_blocks_of_larger_weights():
    """A sub-network's parameters are views into the supernet's: not contiguous."""
    mixture, large = build((3, 8, 0), 2), build((11, 11, 0), 2)
    for name, parameter in mixture.named_parameters():
        whole = large.get_parameter(name)
        view = torch.randn(tuple(size + 2 for size in whole.shape))[tuple(map(slice, parameter.shape))]
        parameter.data = view
    assert not mixture.experts[0].up.weight.is_contiguous()
    mixture.choose_dispatch = lambda *_: grouped_product
    assert_equal_to_reference(mixture, torch.randn(9, WIDTH), "zeros")


def test_on_a_cpu_experts_are_only_computed_on_their_own_tokens():
    mixture = build((4, 8, 0), 2)
    assert choose_dispatch(list(mixture.experts), torch.randn(5, WIDTH)) is sorted_blocks


class OnGpu:
    """What `choose_dispatch` may ask of tokens without waiting for them."""

    device = torch.device("cuda", 0)

    def __init__(self, tokens, width, dtype):
        self.shape, self.dtype = (tokens, width), dtype


@pytest.mark.parametrize(
    ("tokens", "dtype", "capability", "expected"),
    [
        (10, torch.float32, (9, 0), every_expert),
        (10, torch.bfloat16, (8, 0), every_expert),
        (100_000, torch.bfloat16, (9, 0), grouped_product),
        (100_000, torch.bfloat16, (8, 0), sorted_blocks),
        (100_000, torch.float32, (9, 0), sorted_blocks),
    ],
)
def test_on_a_gpu_the_way_depends_on_the_work_and_the_type(monkeypatch, tokens, dtype, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with torch.device("meta"):
        mixture = MixtureOfExperts(1024, (Expert(4096), Expert(4096), Expert(0)), 1, "layer")
    experts = list(mixture.experts)
    assert choose_dispatch(experts, OnGpu(tokens, 1024, dtype)) is expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("way", [every_expert, grouped_product])
@pytest.mark.parametrize("top_k", [1, 2])
def test_a_gpu_is_not_waited_for_and_computes_the_same(way, top_k):
    if way is grouped_product and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("no grouped product on this GPU")
    torch.manual_seed(1)
    mixture = MixtureOfExperts(64, tuple(map(Expert, (128, 40, 0, 256))), top_k, "layer").cuda()
    tokens_ND = torch.rand(500, 64, device="cuda") + 0.1
    with torch.no_grad():
        mixture.router.weight[3] = -1.0  # without tokens

    def mix(x_ND, way):
        gates_NK, _, routing = mixture.route(x_ND)
        with torch.autocast("cuda", torch.bfloat16):
            return way(list(mixture.experts), x_ND, gates_NK, routing)

    exact = outputs_and_gradients(mixture, lambda x: mix(x, sorted_blocks), tokens_ND)
    outputs_and_gradients(mixture, lambda x: mix(x, way), tokens_ND)  # libraries start
    # What is freed here is what a kernel finds in memory it forgets to write.
    poison = [torch.full((1 << size,), torch.nan, device="cuda") for size in range(8, 24)]
    del poison
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = outputs_and_gradients(mixture, lambda x: mix(x, way), tokens_ND)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    pairs = [*zip(got[:2], exact[:2], strict=True), *((got[2][n], exact[2][n]) for n in exact[2])]
    for value, expected in pairs:
        if expected is None:
            assert value.count_nonzero() == 0
        else:
            assert (value - expected).norm() <= 0.02 * expected.norm()


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
