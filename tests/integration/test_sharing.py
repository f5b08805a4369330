"""The golden test: a sub-network inside the supernet, its extracted copy and a model built afresh with
those weights are the same function, in outputs and gradients."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.data.vocabulary import PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.model.sharing import Supernet, leading_block
from automoe.model.transformer import Transformer
from automoe.training.optimizer import BlockAdam
from helpers.reference_mixture import reference_mixture
from helpers.shared_space import SPACE

VOCABULARY_SIZE = 23


def batch(padded: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    source_BS = torch.randint(4, VOCABULARY_SIZE, (3, 7), generator=generator)
    target_BT = torch.randint(4, VOCABULARY_SIZE, (3, 5), generator=generator)
    if padded:
        source_BS[1, 4:] = PAD_ID
        target_BT[2, 3:] = PAD_ID
    return source_BS, target_BT


def run(model: Transformer) -> torch.Tensor:
    """The logits of the real tokens; backpropagates a loss with the balance terms in it."""
    source_BS, target_BT = batch()
    output = model(source_BS, target_BT)
    logits_NV = model.logits(output.hidden_BTD)[target_BT != PAD_ID]
    balance = sum(routing.load_balance_loss for routing in output.routing)
    (logits_NV.log_softmax(1)[:, 5].mean() + 0.1 * balance).backward()
    return logits_NV.detach()


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["pre", "post"]))
@settings(max_examples=40)
def test_view_copy_and_fresh_model_are_one_function(seed, norm):
    rng = random.Random(seed)
    architecture = rng.choice([SPACE.sample, lambda _: SPACE.smallest(), lambda _: SPACE.largest()])(rng)
    supernet = Supernet(SPACE.largest(), VOCABULARY_SIZE, norm=norm, seed=seed)
    view, copy = supernet.subnetwork(architecture), supernet.extract(architecture)
    fresh = Transformer(architecture, VOCABULARY_SIZE, ModelOptions(norm))
    fresh.load_state_dict(copy.state_dict())

    outputs = [run(model) for model in (view, copy, fresh)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs[0], outputs[2], atol=1e-5, rtol=1e-5)

    parameters = zip(view.named_parameters(), copy.parameters(), fresh.parameters(), strict=True)
    for (name, viewed), copied, built in parameters:
        assert (viewed.grad is None) == (copied.grad is None) == (built.grad is None), name
        if viewed.grad is None:  # an expert without tokens
            continue
        torch.testing.assert_close(viewed.grad, copied.grad, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(viewed.grad, built.grad, atol=1e-5, rtol=1e-5)
    if view is not supernet.network:
        assert all(parameter.grad is None for parameter in supernet.network.parameters())


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_training_a_subnetwork_is_training_its_copy(seed):
    """Its leading blocks move as a model of its own does under torch's Adam; nothing else moves."""
    rng = random.Random(seed)
    supernet = Supernet(SPACE.largest(), VOCABULARY_SIZE, seed=seed)
    before = {name: p.detach().clone() for name, p in supernet.network.named_parameters()}
    architecture = SPACE.sample(rng)
    view, copy = supernet.subnetwork(architecture), supernet.extract(architecture)
    ours = BlockAdam(supernet.network, betas=(0.9, 0.98), eps=1e-9)
    adam = torch.optim.Adam(copy.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-9, fused=True)
    for _ in range(2):
        run(view)
        for viewed, copied in zip(view.parameters(), copy.parameters(), strict=True):
            copied.grad = None if viewed.grad is None else viewed.grad.clone()
        ours.step(view, 0.01)
        adam.step()
    trained = dict(copy.named_parameters())
    for name, parameter in supernet.network.named_parameters():
        expected = before[name]
        if name in trained:
            leading_block(expected, trained[name].shape).copy_(trained[name].detach())
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-6, msg=name)


def test_a_subnetwork_is_a_view_and_an_extract_is_not():
    supernet = Supernet(SPACE.largest(), VOCABULARY_SIZE)
    architecture = SPACE.sample(random.Random(1))
    view, copy = supernet.subnetwork(architecture), supernet.extract(architecture)
    before = copy.embedding.clone()
    with torch.no_grad():
        supernet.network.embedding += 1
    torch.testing.assert_close(view.embedding, before + 1)
    torch.testing.assert_close(copy.embedding, before)


def test_dropout_scales_with_the_width():
    supernet = Supernet(SPACE.largest(), VOCABULARY_SIZE, dropout=0.3)
    options = supernet.subnetwork(SPACE.smallest()).options
    assert options.encoder_dropout == pytest.approx(0.3 * 6 / 12)
    assert supernet.network.options.encoder_dropout == pytest.approx(0.3)


def test_an_architecture_that_does_not_fit_is_refused():
    supernet = Supernet(SPACE.smallest(), VOCABULARY_SIZE)
    with pytest.raises(ValueError, match=r"does not fit|has no"):
        supernet.subnetwork(SPACE.largest())


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_padding_changes_nothing_and_is_not_counted(norm):
    model = Supernet(SPACE.largest(), VOCABULARY_SIZE, norm=norm).network.eval()
    source_BS, target_BT = batch()
    output = model(source_BS, target_BT)
    for b in range(3):
        source, target = (x[b : b + 1, : int((x[b] != PAD_ID).sum())] for x in (source_BS, target_BT))
        alone = model(source, target).hidden_BTD[0]
        torch.testing.assert_close(output.hidden_BTD[b, : len(alone)], alone, atol=1e-5, rtol=1e-5)
    real = {"encoder": int((source_BS != PAD_ID).sum()), "decoder": int((target_BT != PAD_ID).sum())}
    assert output.routing
    for routing in output.routing:
        stack, index = routing.layer.split(".")
        top_k = getattr(model.architecture, stack)[int(index)].top_k
        assert routing.tokens_per_expert_E.sum().item() == real[stack] * top_k


def test_a_layer_is_the_obvious_composition():
    """One pre-norm encoder layer written out by hand, the mixture by its slow reference."""
    architecture = Architecture(8, 8, 8, (EncoderLayer(2, (5, 7)),), (DecoderLayer(2, 2, (5,)),))
    model = Supernet(architecture, VOCABULARY_SIZE, norm="pre").network.eval()
    source_BS = batch(padded=False)[0][:1]
    block = model.encoder[0]
    x = model._embed(source_BS, 0, 8, 0.0)[0]
    y = block.attention_residual.norm(x)
    heads = []
    for h in range(2):
        q, k, v = (getattr(block.attention, n)(y)[:, 4 * h : 4 * h + 4] for n in "qkv")
        heads.append((q @ k.T / 2.0).softmax(1) @ v)
    x = x + block.attention.out(torch.cat(heads, 1))
    x = x + reference_mixture(block.ffn.mixture, block.ffn_residual.norm(x))
    torch.testing.assert_close(
        model.encode(source_BS).outputs[-1][0], model.encoder_norm(x), atol=1e-5, rtol=1e-5
    )
