"""Counts of random architectures against models that were really built and run."""

import random
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from automoe.cost.counting import count
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.design.architecture_file import load_architecture
from automoe.design.model_options import ModelOptions
from automoe.design.space import DecoderSpace, EncoderSpace, SearchSpace
from automoe.model.transformer import Transformer
from helpers.paths import TEST_DATA

V = 50
SPACE = SearchSpace(
    qkv_dim=16,
    encoder=EncoderSpace(
        widths=(12, 16, 24),
        layer_counts=(1, 2, 3),
        self_attention_heads=(2, 4),
        ffn_sizes=(0, 8, 20, 32),
        max_experts=4,
        top_k=(1, 2),
    ),
    decoder=DecoderSpace(
        widths=(12, 16, 24),
        layer_counts=(1, 2, 3),
        self_attention_heads=(2, 4),
        cross_attention_heads=(2, 4),
        encoder_layers_attended=(1, 2, 3),
        ffn_sizes=(0, 8, 20, 32),
        max_experts=4,
        top_k=(1, 2),
    ),
    experts="fractional",
)


def sampled(seed: int) -> Architecture:
    return SPACE.sample(random.Random(seed))


# What torch does not count, for S encoder and R decoder rows.


def norms(a: Architecture, S: int, R: int) -> int:
    """One product per element of a layer norm: two norms an encoder layer, three a decoder layer."""
    return 2 * S * a.encoder_width * len(a.encoder) + 3 * R * a.decoder_width * len(a.decoder)


def scaling(a: Architecture, S: int, R: int) -> int:
    """One product per element of the embeddings and of the queries of each attention."""
    embeddings = S * a.encoder_width + R * a.decoder_width
    return embeddings + a.qkv_dim * (S * len(a.encoder) + 2 * R * len(a.decoder))


def gates(a: Architecture, S: int, R: int) -> int:
    """One product per element of each output of each expert of a mixture."""
    encoder = sum(layer.top_k for layer in a.encoder if len(layer.experts) > 1)
    decoder = sum(layer.top_k for layer in a.decoder if len(layer.experts) > 1)
    return S * a.encoder_width * encoder + R * a.decoder_width * decoder


def traced(a: Architecture, S: int, R: int) -> int:
    """What the papers' tracer saw besides: one product a position, three an attention."""
    return S + R + 3 * (len(a.encoder) + 2 * len(a.decoder))


@given(seed=st.integers(0, 2**32), norm=st.sampled_from(["pre", "post"]))
@settings(max_examples=60)
def test_total_parameters_are_those_of_the_model(seed: int, norm: Literal["pre", "post"]) -> None:
    architecture = sampled(seed)
    with torch.device("meta"):
        model = Transformer(architecture, V, ModelOptions(norm=norm))
    built = sum(parameter.numel() for parameter in model.parameters())
    counts = count(architecture, MeasuringProtocol(vocabulary_size=V, norm=norm))
    assert counts.total_parameters == built
    assert counts.parameters == built - model.embedding.numel()


@given(seed=st.integers(0, 2**32), source_length=st.integers(1, 9), target_length=st.integers(1, 9))
@settings(max_examples=40)
def test_flops_are_those_torch_counts(seed: int, source_length: int, target_length: int) -> None:
    """Linear layers and attention products of a teacher-forced pass, under the routing that happened."""
    architecture = sampled(seed)
    model = Transformer(architecture, V)
    model.initialise(seed)
    source_BS = torch.randint(4, V, (1, source_length))
    target_BT = torch.randint(4, V, (1, target_length))
    # The plain implementation shows its two matrix products; the fused ones hide them from the counter.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model(source_BS, target_BT)
    shares = {
        routing.layer: (routing.tokens_per_expert_E / routing.tokens_per_expert_E.sum()).tolist()
        for routing in output.routing
    }
    counts = count(
        architecture,
        MeasuringProtocol(source_length=source_length, target_length=target_length),
        routing_shares=shares,
    )
    unseen = norms(architecture, source_length, target_length)
    unseen += scaling(architecture, source_length, target_length)
    unseen += gates(architecture, source_length, target_length)
    unseen += traced(architecture, source_length, target_length)
    # Shares are fractions: the sum may be rounded the other way.
    assert counter.get_total_flops() == pytest.approx(counts.flops - 2 * unseen, abs=1, rel=1e-6)


def test_published_figures_by_kind() -> None:
    """HAT's published FLOPs, kind by kind as its tracer listed them."""
    linear, attention, norm, elementwise = 2_091_909_120 - 30 * 512 * 32768, 17_510_400, 414_720, 276_588
    architecture = load_architecture(TEST_DATA / "hat" / "HAT_wmt14ende_xeon@369.6ms_bleu@28.2.yml")
    model = Transformer(architecture, V)
    model.initialise(0)
    tokens = torch.randint(4, V, (1, 30))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens, tokens)
    found = {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}
    assert found == {"aten.addmm": 2 * linear, "aten.bmm": 2 * attention}
    assert norms(architecture, 30, 30) == norm
    assert scaling(architecture, 30, 30) + traced(architecture, 30, 30) == elementwise
    assert count(architecture).flops == 2 * (linear + attention + norm + elementwise)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20)
def test_decoding_flops_are_those_torch_counts(seed: int) -> None:
    """Encoder, cached steps of every beam and output layer; dense, where routing plays no part."""
    architecture = SPACE.dense().sample(random.Random(seed))
    S, T, beam = 7, 5, 3
    model = Transformer(architecture, V)
    model.initialise(seed)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        state = model.start(model.encode(torch.randint(4, V, (1, S))), beam, T)
        for _ in range(T):
            model.logits(model.step(torch.randint(4, V, (1, beam)), state))
    total = count(
        architecture, MeasuringProtocol(source_length=S, target_length=T, vocabulary_size=V, beam_size=beam)
    ).total_flops
    unseen = norms(architecture, S, beam * T) + scaling(architecture, S, beam * T)
    assert counter.get_total_flops() == total - 2 * unseen


def test_memory_covers_the_weights_of_the_model() -> None:
    architecture = replace(SPACE.largest(), qkv_dim=32)
    model = Transformer(architecture, V)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    counts = count(architecture, MeasuringProtocol(vocabulary_size=V))
    assert weights < counts.memory_bytes < 2 * weights
