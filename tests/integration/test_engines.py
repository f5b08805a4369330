"""Every engine computes the model: against the teacher-forced forward pass, for random architectures."""

import dataclasses
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.errors import InputError
from automoe.inference.backends import make_engine
from automoe.inference.beam import beam_search
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine
from automoe.model.transformer import ModelOptions, Transformer

VOCABULARY = 23
FAST = [("onnx", "float32"), ("onnx", "int8"), ("torch", "float16")]
# Of log probabilities: rounding weights and inputs to 8 bits moves those of a random model by some percent.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "int8": 0.5}

experts = st.lists(st.sampled_from([0, 8, 24]), min_size=1, max_size=4).map(tuple)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    def top_k(sizes: tuple[int, ...]) -> int:
        return draw(st.integers(1, min(2, len(sizes))))

    def encoder_layer() -> EncoderLayer:
        sizes = draw(experts)
        return EncoderLayer(draw(st.sampled_from([1, 2, 4])), sizes, top_k(sizes))

    def decoder_layer() -> DecoderLayer:
        sizes = draw(experts)
        heads = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4]))
        return DecoderLayer(*heads, sizes, top_k(sizes), draw(st.integers(1, 2)))

    widths = draw(st.sampled_from([12, 16])), draw(st.sampled_from([12, 16]))
    encoder = tuple(encoder_layer() for _ in range(2))
    return Architecture(*widths, 8, encoder, tuple(decoder_layer() for _ in range(draw(st.integers(1, 2)))))


def without_mixtures(architecture: Architecture) -> Architecture:
    """The same with the first expert of each layer alone."""
    stacks = {
        stack: tuple(dataclasses.replace(layer, experts=layer.experts[:1], top_k=1) for layer in layers)
        for stack, layers in (("encoder", architecture.encoder), ("decoder", architecture.decoder))
    }
    return dataclasses.replace(architecture, **stacks)


def random_model(architecture: Architecture, norm: str = "pre", seed: int = 0) -> Transformer:
    model = Transformer(architecture, VOCABULARY, ModelOptions(norm))
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # biases that are not zero, and norms that are not the identity
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def batch(seed: int, lengths: list[int]) -> torch.Tensor:
    rng = random.Random(seed)
    rows = [[*(rng.randrange(4, VOCABULARY) for _ in range(n - 1)), EOS_ID] for n in lengths]
    return torch.tensor([row + [PAD_ID] * (max(lengths) - len(row)) for row in rows])


@torch.inference_mode()
def stepped(engine: Engine, source_BS: torch.Tensor, target_BKT: torch.Tensor) -> torch.Tensor:
    """Log probabilities (B, K, T, V) of all tokens, step by step, every beam continuing itself."""
    B, K, T = target_BKT.shape
    state = engine.start(engine.encode(source_BS), K, T)
    out = torch.empty(B, K, T, VOCABULARY)
    for t in range(T):
        found = engine.step(target_BKT[:, :, t].contiguous(), state, VOCABULARY)
        out[:, :, t].scatter_(2, found.tokens_BKC, found.log_probability_BKC)
        torch.testing.assert_close(found.end_BK, out[:, :, t, EOS_ID])
        assert (found.log_probability_BKC.diff(dim=2) <= 0).all()
        state.reorder(torch.arange(K).repeat(B, 1))
    return out


@torch.inference_mode()
def forced(model: Transformer, source_BS: torch.Tensor, target_BKT: torch.Tensor) -> torch.Tensor:
    """The same from `Transformer.forward`, sentence by sentence and beam by beam."""
    rows = []
    for source_S, target_KT in zip(source_BS, target_BKT, strict=True):
        alone = source_S[source_S != PAD_ID].repeat(len(target_KT), 1)
        rows.append(model.logits(model(alone, target_KT).hidden_BTD).log_softmax(-1))
    return torch.stack(rows)


@pytest.mark.parametrize(("backend", "precision"), [("torch", "float32"), *FAST])
@settings(deadline=None, max_examples=12)
@given(architecture=architectures(), norm=st.sampled_from(["pre", "post"]), seed=st.integers(0, 99))
def test_steps_equal_teacher_forcing(
    backend: str, precision: str, architecture: Architecture, norm: str, seed: int
) -> None:
    if precision == "int8":  # rounding may send a token of a random router to another expert
        architecture = without_mixtures(architecture)
    model = random_model(architecture, norm, seed)
    engine = make_engine(model, backend, precision)
    source_BS = batch(seed, [5, 2, 4])
    generator = torch.Generator().manual_seed(seed)
    target_BKT = torch.randint(4, VOCABULARY, (3, 2, 4), generator=generator)
    target_BKT[:, :, 0] = BOS_ID
    found, expected = stepped(engine, source_BS, target_BKT), forced(model, source_BS, target_BKT)
    assert (found.exp() - expected.exp()).abs().max() < TOLERANCE[precision]
    if precision == "float32":
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=15)
@given(architecture=architectures(), seed=st.integers(0, 99))
def test_onnx_searches_like_the_model(architecture: Architecture, seed: int) -> None:
    """Reordered beams, sentences that leave the batch, experts without tokens: the same translations."""
    model = random_model(architecture, seed=seed)
    source_BS = batch(seed, [6, 1, 3, 3, 2])
    searched = BeamSettings(beam_size=3, max_length_ratio=1, max_length_extra=3, n_best=2)
    found, expected = (
        beam_search(make_engine(model, backend), source_BS, searched) for backend in ("onnx", "torch")
    )
    for mine, reference in zip(found, expected, strict=True):
        assert [h.tokens for h in mine] == [h.tokens for h in reference]
        for one, other in zip(mine, reference, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize(("backend", "precision"), FAST)
@pytest.mark.parametrize("favourite", [0, 2])
def test_all_tokens_on_one_expert(backend: str, precision: str, favourite: int) -> None:
    layer = EncoderLayer(2, (24, 8, 0))
    model = random_model(Architecture(16, 16, 8, (layer,), (DecoderLayer(2, 2, (24, 8, 0)),)))
    with torch.no_grad():  # post-norm outputs average zero, so a router's bias must come from the input
        for block in (*model.encoder, *model.decoder):
            block.ffn_residual.norm.bias.fill_(1.0)
            block.ffn.mixture.router.weight.zero_()
            block.ffn.mixture.router.weight[favourite] = 1.0
    source_BS = batch(1, [7])
    assert model.encode(source_BS).routing[0].tokens_per_expert_E[favourite] == 7
    target_BKT = torch.full((1, 2, 3), 5)
    found = stepped(make_engine(model, backend, precision), source_BS, target_BKT)
    difference = found.exp() - forced(model, source_BS, target_BKT).exp()
    assert difference.abs().max() < TOLERANCE[precision]


def test_int8_stores_less() -> None:
    from automoe.inference.onnx_graph import decoder_graph

    model = random_model(Architecture(64, 64, 64, (EncoderLayer(2, (256,)),), (DecoderLayer(2, 2, (256,)),)))
    small, large = (decoder_graph(model, precision).ByteSize() for precision in ("int8", "float32"))
    assert small < 0.5 * large


def test_an_unknown_pair_is_refused() -> None:
    model = random_model(Architecture(16, 16, 8, (EncoderLayer(1, (8,)),), (DecoderLayer(1, 1, (8,)),)))
    with pytest.raises(InputError, match="onnx with precision float16") as refused:
        make_engine(model, "onnx", "float16")
    assert "torch: float32, float16" in refused.value.problems[0]


def test_a_model_too_large_for_a_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(Architecture(16, 16, 8, (EncoderLayer(1, (8,)),), (DecoderLayer(1, 1, (8,)),)))
    monkeypatch.setattr("automoe.inference.onnx_graph.LARGEST_BYTES", 1000)
    with pytest.raises(InputError, match="2 GiB"):
        make_engine(model, "onnx")
