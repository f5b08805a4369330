"""The chunked output layer and loss against torch's own, and the objective against sums done by hand."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from automoe.data.vocabulary import PAD_ID
from automoe.model.sharing import Supernet
from automoe.training import objective as room
from automoe.training.objective import Teacher, linear_cross_entropy, objective, validation_loss
from helpers.reversal import LARGE, SMALL, VOCABULARY, ReversalStream


def _inputs(tokens, width, vocabulary):
    generator = torch.Generator().manual_seed(tokens * 1000 + vocabulary)
    hidden = torch.randn(tokens, width, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=generator, requires_grad=True)
    target = torch.randint(vocabulary, (tokens,), generator=generator)
    return hidden, weight, target


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.integers(1, 40),
    vocabulary=st.integers(2, 50),
    chunk=st.integers(1, 500),
    smoothing=st.sampled_from([0.0, 0.1, 0.6]),
)
def test_chunked_loss_equals_torch(tokens, vocabulary, chunk, smoothing):
    hidden, weight, target = _inputs(tokens, 7, vocabulary)
    logits = hidden @ weight.T
    expected = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum")
    expected_nll = F.cross_entropy(logits, target, reduction="sum")
    expected_grads = torch.autograd.grad(expected / 3, (hidden, weight))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "CHUNK_LOGITS", chunk)
        loss, nll = linear_cross_entropy(hidden, weight, target, smoothing)
    grads = torch.autograd.grad(loss / 3, (hidden, weight))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nll, expected_nll, rtol=1e-5, atol=1e-5)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-5)


def test_bfloat16_autocast_is_close_and_keeps_gradients_float32(monkeypatch):
    monkeypatch.setattr(room, "CHUNK_LOGITS", 100)
    hidden, weight, target = _inputs(64, 16, 30)
    expected = linear_cross_entropy(hidden, weight, target, 0.1)[0]
    expected_grads = torch.autograd.grad(expected, (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = linear_cross_entropy(hidden, weight, target, 0.1)
    grads = torch.autograd.grad(loss, (hidden, weight))
    assert loss.dtype == torch.float32
    assert loss != expected  # the products really ran in bfloat16
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.dtype == torch.float32
        assert F.cosine_similarity(grad.flatten(), expected_grad.flatten(), dim=0) > 0.999


def _taught_loss(hidden, weight, target, smoothing, teacher):
    """The same with all the logits, in torch's words: the divergence, and the entropy that it leaves out."""
    logits = hidden @ weight[:, : hidden.shape[1]].T
    teacher_logits = teacher.hidden_ND @ teacher.weight_VC[:, : teacher.hidden_ND.shape[1]].T
    log_p = teacher_logits.log_softmax(1).detach()
    divergence = F.kl_div(logits.log_softmax(1), log_p, log_target=True, reduction="sum")
    entropy = torch.distributions.Categorical(logits=teacher_logits.detach()).entropy().sum()
    data = F.cross_entropy(logits, target, label_smoothing=smoothing, reduction="sum")
    return (1 - teacher.distillation) * data + teacher.distillation * (divergence + entropy)


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.integers(1, 40),
    vocabulary=st.integers(2, 50),
    chunk=st.integers(1, 500),
    smoothing=st.sampled_from([0.0, 0.1]),
    distillation=st.sampled_from([0.0, 0.3, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_chunked_loss_with_a_teacher_equals_torch(tokens, vocabulary, chunk, smoothing, distillation, dtype):
    generator = torch.Generator().manual_seed(tokens * 1000 + vocabulary)
    # The student is 5 of 6 columns wide, its teacher 7 of 9; their embeddings share storage.
    shared = torch.randn(vocabulary, 9, generator=generator, dtype=dtype)
    hidden = torch.randn(tokens, 5, generator=generator, dtype=dtype, requires_grad=True)
    weight = shared[:, :6].detach().requires_grad_()
    target = torch.randint(vocabulary, (tokens,), generator=generator)
    teacher = Teacher(
        torch.randn(tokens, 7, generator=generator, dtype=dtype, requires_grad=True),
        shared.detach().requires_grad_(),
        distillation,
    )
    expected = _taught_loss(hidden, weight, target, smoothing, teacher)
    expected_grads = torch.autograd.grad(expected / 3, (hidden, weight))
    expected_nll = F.cross_entropy(hidden @ weight[:, :5].T, target, reduction="sum")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "CHUNK_LOGITS", chunk)
        loss, nll = linear_cross_entropy(hidden, weight, target, smoothing, teacher)
    assert not nll.requires_grad
    (loss / 3).backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(loss, expected, **tolerance)
    torch.testing.assert_close(nll, expected_nll, **tolerance)
    for grad, expected_grad in zip((hidden.grad, weight.grad), expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, **tolerance)
    assert teacher.hidden_ND.grad is None
    assert teacher.weight_VC.grad is None


def test_a_teacher_under_bfloat16_autocast_is_close(monkeypatch):
    monkeypatch.setattr(room, "CHUNK_LOGITS", 100)
    hidden, weight, target = _inputs(64, 16, 30)
    generator = torch.Generator().manual_seed(5)
    teacher = Teacher(torch.randn(64, 20, generator=generator), torch.randn(30, 20, generator=generator), 0.7)
    expected = _taught_loss(hidden, weight, target, 0.1, teacher)
    expected_grads = torch.autograd.grad(expected, (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = linear_cross_entropy(hidden, weight, target, 0.1, teacher)
    grads = torch.autograd.grad(loss, (hidden, weight))
    assert loss != expected  # the products really ran in bfloat16
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.dtype == torch.float32
        assert F.cosine_similarity(grad.flatten(), expected_grad.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("architecture", [LARGE, SMALL])
def test_objective_equals_loss_over_all_logits(architecture):
    model = Supernet(architecture, VOCABULARY).network
    batch = next(ReversalStream(seed=1))
    assert (batch.target_out_BT == PAD_ID).any()
    part = objective(model, batch, label_smoothing=0.1, balance_coefficient=0.5)
    part.loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)

    output = model(batch.source_BS, batch.target_in_BT)
    logits = model.logits(output.hidden_BTD).flatten(0, 1)
    target = batch.target_out_BT.flatten()
    smooth = F.cross_entropy(logits, target, label_smoothing=0.1, ignore_index=PAD_ID, reduction="sum")
    balance = sum(layer.load_balance_loss for layer in output.routing) / len(output.routing)
    (smooth + batch.target_tokens * 0.5 * balance).backward()

    assert part.tokens == batch.target_tokens
    torch.testing.assert_close(part.balance, balance.detach())
    torch.testing.assert_close(
        part.nll_sum, F.cross_entropy(logits, target, ignore_index=PAD_ID, reduction="sum").detach()
    )
    assert set(grads) == {name for name, p in model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_validation_loss_is_mean_nll_without_dropout_and_keeps_the_mode(monkeypatch):
    model = Supernet(LARGE, VOCABULARY, dropout=0.5).network
    stream = ReversalStream(seed=2)
    batches = [next(stream) for _ in range(3)]
    monkeypatch.setattr(room, "CHUNK_LOGITS", 3 * VOCABULARY)
    model.train()
    loss = validation_loss(model, batches)
    assert model.training

    model.eval()
    total = 0.0
    for batch in batches:
        logits = model.logits(model(batch.source_BS, batch.target_in_BT).hidden_BTD)
        probabilities = logits.detach().softmax(-1)
        for row, column in (batch.target_out_BT != PAD_ID).nonzero().tolist():
            total -= math.log(probabilities[row, column, batch.target_out_BT[row, column]])
    assert loss == pytest.approx(total / sum(batch.target_tokens for batch in batches), rel=1e-5)


def test_objective_is_immutable():
    part = objective(Supernet(SMALL, VOCABULARY).network, next(ReversalStream(seed=3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.tokens = 0
