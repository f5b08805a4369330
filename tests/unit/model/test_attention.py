"""Attention against its formula, written out, in float32 and under bfloat16 autocast."""

import math

import pytest
import torch

from automoe.model.attention import Attention

QUERIES, MEMORY, HEADS, PART = 5, 7, 3, 4


def reference(attention, query_BQD, memory_BMD, mask_QM):
    """softmax(Q K^T / sqrt(E)) V, head by head, in float64."""
    parts = []
    projections = [
        layer.weight.double() @ inputs.double().mT + layer.bias.double()[:, None]
        for layer, inputs in ((attention.q, query_BQD), (attention.k, memory_BMD), (attention.v, memory_BMD))
    ]
    for head in range(HEADS):
        q_BEQ, k_BEM, v_BEM = (x[:, head * PART : (head + 1) * PART] for x in projections)
        scores_BQM = (q_BEQ.mT @ k_BEM / math.sqrt(PART)).masked_fill(~mask_QM, -math.inf)
        parts.append(scores_BQM.softmax(dim=2) @ v_BEM.mT)
    return torch.cat(parts, dim=2) @ attention.out.weight.double().mT + attention.out.bias.double()


def outputs_and_gradients(attention, attend, query_BQD):
    query_BQD = query_BQD.clone().requires_grad_()
    attention.zero_grad()
    out_BQD = attend(query_BQD)
    (out_BQD.double() * torch.linspace(-1, 1, out_BQD.numel()).reshape(out_BQD.shape)).sum().backward()
    # An offset of all keys changes no softmax, so the gradient of their bias is but a rounding of 0.
    gradients = {name: p.grad for name, p in attention.named_parameters() if name != "k.bias"}
    return {"output": out_BQD.detach(), "query": query_BQD.grad, **gradients}


@pytest.mark.parametrize("looks", ["everywhere", "by a mask", "causally"])
@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 1e-5), (True, 0.02)])
def test_outputs_and_gradients_are_the_formulas(looks, autocast, tolerance):
    torch.manual_seed(1)
    memory_length = QUERIES if looks == "causally" else MEMORY
    attention = Attention(8, 6 if looks != "causally" else 8, HEADS * PART, HEADS)
    query_BQD, memory_BMD = torch.randn(2, QUERIES, 8), torch.randn(2, memory_length, attention.k.in_features)
    mask_QM = torch.ones(QUERIES, memory_length, dtype=torch.bool)
    if looks == "by a mask":
        mask_QM = torch.rand(QUERIES, memory_length) < 0.6
        mask_QM[:, 0] = True
    elif looks == "causally":
        mask_QM = mask_QM.tril()

    def attend(x_BQD):
        mask = mask_QM if looks == "by a mask" else None
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return attention.over(x_BQD, memory_BMD, mask, causal=looks == "causally")

    got = outputs_and_gradients(attention, attend, query_BQD)
    expected = outputs_and_gradients(
        attention, lambda x: reference(attention, x, memory_BMD, mask_QM), query_BQD
    )
    for name, values in expected.items():
        assert (got[name] - values).norm() <= tolerance * values.norm(), name


def test_on_a_cpu_attention_itself_is_computed_in_float32_under_autocast():
    """In bfloat16 its gradient would take more time there than all products gain."""
    attention, seen = Attention(8, 8, HEADS * PART, HEADS), []
    attention.out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        attention.over(torch.randn(2, QUERIES, 8), torch.randn(2, MEMORY, 8))
        assert attention.q(torch.randn(2, 8)).dtype == torch.bfloat16
    assert seen == [torch.float32]
