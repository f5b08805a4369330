"""Every engine computes the model and searches alike: against the forward pass, for random architectures."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.errors import InputError
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.graph_model import ModelGraph
from automoe.inference.translation_graph import translation_graph
from automoe.inference.weight_shapes import weight_shapes
from automoe.model.transformer import Transformer
from helpers.random_models import (
    TOLERANCE,
    VOCABULARY,
    architectures,
    batch,
    random_model,
    without_mixtures,
)

FAST = [("onnx", "float32"), ("onnx", "int8"), ("torch", "float16")]


@torch.inference_mode()
def log_probability(model: Transformer, source: Sequence[int], tokens: Sequence[int]) -> float:
    """Of a translation, by the teacher-forced pass alone."""
    target_in = torch.tensor([[BOS_ID, *tokens]])
    logits_TV = model.logits(model(torch.tensor([source]), target_in).hidden_BTD)[0]
    target_T = torch.tensor([*tokens, EOS_ID])
    return float(logits_TV.log_softmax(-1).gather(1, target_T[:, None]).sum())


@pytest.mark.parametrize(("backend", "precision"), [("torch", "float32"), *FAST])
@settings(deadline=None, max_examples=12)
@given(
    architecture=architectures(),
    norm=st.sampled_from(["pre", "post"]),
    beam_size=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_what_is_found_is_as_probable_as_it_says(
    backend: str, precision: str, architecture: Architecture, norm: str, beam_size: int, seed: int
) -> None:
    """Caches, reordered beams, masks and padding, against the forward pass of each sentence alone."""
    if precision == "int8":  # rounding may send a token of a random router to another expert
        architecture = without_mixtures(architecture)
    model = random_model(architecture, norm, seed)
    source_BS = batch(seed, [5, 2, 4])
    searched = BeamSettings(beam_size, n_best=beam_size, max_length_ratio=1, max_length_extra=3, min_length=1)
    found = make_engine(model, backend, precision).search(source_BS, searched)
    for source_S, hypotheses in zip(source_BS, found, strict=True):
        assert hypotheses
        for one in hypotheses:
            expected = log_probability(model, source_S[source_S != PAD_ID].tolist(), one.tokens)
            length = len(one.tokens) + 1
            assert abs(one.log_probability - expected) < TOLERANCE[precision] * length
            assert one.score == pytest.approx(one.log_probability / length**0.6, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    architecture=architectures(),
    norm=st.sampled_from(["pre", "post"]),
    searched=st.builds(
        BeamSettings,
        beam_size=st.integers(3, 8),
        n_best=st.integers(1, 3),
        length_penalty=st.sampled_from([0.0, 0.6, 1.5]),
        max_length_ratio=st.sampled_from([0.5, 1.0]),
        max_length_extra=st.integers(0, 4),
        min_length=st.integers(1, 4),
    ),
    seed=st.integers(0, 99),
)
def test_onnx_searches_like_the_model(
    architecture: Architecture, norm: str, searched: BeamSettings, seed: int
) -> None:
    """Reordered beams, sentences that leave the batch, experts without tokens: the same translations."""
    model = random_model(architecture, norm, seed=seed)
    source_BS = batch(seed, [6, 1, 3, 3, 2])
    engines = make_engine(model, "onnx"), make_engine(model, "torch")
    found, expected = (engine.search(source_BS, searched) for engine in engines)
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
    assert model.encode(torch.from_numpy(source_BS)).routing[0].tokens_per_expert_E[favourite] == 7
    (found,) = make_engine(model, backend, precision).search(source_BS, BeamSettings(2, n_best=2))
    for one in found:
        expected = log_probability(model, source_BS[0].tolist(), one.tokens)
        assert abs(one.log_probability - expected) < TOLERANCE[precision] * (len(one.tokens) + 1)


def test_more_positions_than_are_tabled() -> None:
    model = random_model(Architecture(16, 12, 8, (EncoderLayer(2, (8,)),), (DecoderLayer(2, 2, (8,)),)))
    source_BS = batch(3, [300, 290])
    searched = BeamSettings.exactly(290, beam_size=2)
    engines = make_engine(model, "onnx"), make_engine(model, "torch")
    found, expected = ([best[0].tokens for best in engine.search(source_BS, searched)] for engine in engines)
    assert found == expected
    assert [len(tokens) for tokens in found] == [289, 289]


def test_forced_tokens_are_what_the_decoder_reads() -> None:
    """The tokens chosen after forced ones are the most probable ones after those."""
    model = random_model(Architecture(16, 16, 8, (EncoderLayer(2, (8,)),), (DecoderLayer(2, 2, (8, 24)),)))
    source_BS = batch(3, [4, 4])
    forced_TBK = np.random.default_rng(1).integers(4, VOCABULARY, (5, 2, 1))
    read_BT = torch.from_numpy(forced_TBK[:, :, 0].T.copy())
    with torch.inference_mode():
        logits_BTV = model.logits(model(torch.from_numpy(source_BS), read_BT).hidden_BTD).clone()
        logits_BTV[:, :, [PAD_ID, BOS_ID, EOS_ID]] = -torch.inf
    for backend in ("onnx", "torch"):
        engine = make_engine(model, backend, forced=True)
        found = engine.search(source_BS, BeamSettings.exactly(5, beam_size=1), forced_TBK)
        assert [list(one.tokens) for (one,) in found] == logits_BTV.argmax(dim=2)[:, :4].tolist()
        wide = engine.search(source_BS, BeamSettings.exactly(5, beam_size=3), forced_TBK.repeat(3, axis=2))
        assert all(len(one.tokens) == 4 for (one,) in wide)


def test_int8_stores_less() -> None:
    model = random_model(Architecture(64, 64, 64, (EncoderLayer(2, (256,)),), (DecoderLayer(2, 2, (256,)),)))
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    small, large = (
        translation_graph(ModelGraph(model.architecture, "pre", weights, precision)).ByteSize()
        for precision in ("int8", "float32")
    )
    assert small < 0.5 * large


@settings(deadline=None, max_examples=30)
@given(architecture=architectures(), norm=st.sampled_from(["pre", "post"]))
def test_shapes_of_weights_are_known_without_a_model(architecture: Architecture, norm: str) -> None:
    model = Transformer(architecture, VOCABULARY, ModelOptions(norm))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert weight_shapes(architecture, VOCABULARY, norm) == expected


def test_an_unknown_pair_is_refused() -> None:
    model = random_model(Architecture(16, 16, 8, (EncoderLayer(1, (8,)),), (DecoderLayer(1, 1, (8,)),)))
    with pytest.raises(InputError, match="onnx with precision float16") as refused:
        make_engine(model, "onnx", "float16")
    assert "torch: float32, float16" in refused.value.problems[0]
