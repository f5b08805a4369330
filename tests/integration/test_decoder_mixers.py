"""Decoders that carry vectors on (average attention, SSRU) beside self-attention: everywhere alike."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from automoe.cost.counting import count
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.vocabulary import BOS_ID, PAD_ID
from automoe.design.architecture import Architecture, with_mixer
from automoe.design.model_options import ModelOptions
from automoe.design.space import DecoderSpace, EncoderSpace, SearchSpace, load_space
from automoe.evaluation.expert_use import ModelRouter
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.graph_model import ModelGraph
from automoe.inference.routing_graph import OnnxRouter
from automoe.inference.weight_shapes import weight_shapes
from automoe.model.sharing import Supernet, leading_block
from automoe.model.transformer import Transformer
from automoe.training.optimizer import BlockAdam
from helpers.paths import RECIPES
from helpers.random_models import TOLERANCE, VOCABULARY, batch, random_model, without_mixtures
from helpers.slow_search import assert_same, slow_beam_search
from helpers.tiny_run import run_here, write_tiny_recipe

STACK = {"widths": (12, 16), "self_attention_heads": (1, 4), "ffn_sizes": (0, 8, 24), "max_experts": 3}
SPACE = SearchSpace(
    qkv_dim=8,
    experts="fractional",
    encoder=EncoderSpace(layer_counts=(2,), **STACK),
    decoder=DecoderSpace(
        layer_counts=(1, 2, 3),
        cross_attention_heads=(1, 4),
        encoder_layers_attended=(1, 2),
        mixers=("self_attention", "average_attention", "ssru"),
        **STACK,
    ),
)
MEMBERS = st.integers(0, 2**32).map(lambda seed: SPACE.sample(random.Random(seed)))
NORMS = st.sampled_from(["pre", "post"])


def supernet(norm: str = "pre", seed: int = 0) -> Supernet:
    return Supernet(SPACE.largest(), VOCABULARY, norm=norm, seed=seed, mixers=SPACE.decoder.mixers)


@settings(deadline=None, max_examples=25)
@given(architecture=MEMBERS, norm=NORMS, seed=st.integers(0, 999))
def test_a_step_equals_teacher_forcing(architecture: Architecture, norm: str, seed: int) -> None:
    """Beams that read other tokens each, continue another's past now and then, and sentences that leave."""
    model = random_model(architecture, norm, seed).double()
    source_BS = torch.from_numpy(batch(seed, [5, 2, 4]))
    rng, beams, T = torch.Generator().manual_seed(seed), 3, 6
    read_BKT = torch.full((3, beams, 0), BOS_ID)
    with torch.inference_mode():
        state = model.start(model.encode(source_BS), beams, T)
        for step in range(T):
            new_BK = torch.randint(3, VOCABULARY, read_BKT.shape[:2], generator=rng)
            read_BKT = torch.cat([read_BKT, (new_BK if step else new_BK * 0 + BOS_ID)[:, :, None]], dim=2)
            hidden_BKD = model.step(read_BKT[:, :, -1], state)
            for source_S, rows_KT, found_KD in zip(source_BS, read_BKT, hidden_BKD, strict=True):
                source_KS = source_S[source_S != PAD_ID].expand(beams, -1)
                expected_KD = model(source_KS, rows_KT).hidden_BTD[:, -1]
                torch.testing.assert_close(found_KD, expected_KD, rtol=0, atol=1e-9)
            origins_BK = torch.randint(0, beams, read_BKT.shape[:2], generator=rng)
            state.reorder(origins_BK)
            read_BKT = read_BKT.gather(1, origins_BK[:, :, None].expand_as(read_BKT))
            if step == 2:
                staying = torch.tensor([2, 0])
                state.keep(staying)
                source_BS, read_BKT = source_BS[staying], read_BKT[staying]


def test_padding_after_a_sentence_changes_nothing() -> None:
    for mixer in ("average_attention", "ssru"):
        model = random_model(with_mixer(SPACE.largest(), mixer))
        source_BS = torch.from_numpy(batch(1, [4, 4]))
        target_BT = torch.tensor([[BOS_ID, 5, 6, PAD_ID, PAD_ID], [BOS_ID, 7, 8, 9, 10]])
        with torch.inference_mode():
            together = model(source_BS, target_BT).hidden_BTD[0, :3]
            alone = model(source_BS[:1], target_BT[:1, :3]).hidden_BTD[0]
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(
    architecture=MEMBERS,
    norm=NORMS,
    searched=st.builds(
        BeamSettings,
        beam_size=st.integers(2, 5),
        n_best=st.integers(1, 2),
        max_length_ratio=st.sampled_from([0.5, 1.0]),
        max_length_extra=st.integers(1, 4),
        min_length=st.integers(1, 3),
    ),
    seed=st.integers(0, 99),
)
def test_the_graph_searches_like_the_model(
    architecture: Architecture, norm: str, searched: BeamSettings, seed: int
) -> None:
    """What hypotheses carry on follows them, and leaves with its sentence."""
    model = random_model(architecture, norm, seed)
    source_BS = batch(seed, [6, 1, 3, 3, 2])
    engines = make_engine(model, "onnx"), make_engine(model, "torch")
    found, expected = (engine.search(source_BS, searched) for engine in engines)
    for mine, reference in zip(found, expected, strict=True):
        assert_same(mine, reference)


@pytest.mark.parametrize(("backend", "precision"), [("torch", "float32"), ("onnx", "float32")])
def test_the_search_is_the_slow_and_obvious_one(backend: str, precision: str) -> None:
    architecture = replace(SPACE.largest(), decoder=with_every_mixer(SPACE.largest()))
    model = random_model(architecture)
    searched = BeamSettings(beam_size=3, n_best=3, max_length_extra=3)
    source_BS = batch(5, [3, 6])
    found = make_engine(model, backend, precision).search(source_BS, searched)
    for row, best in zip(source_BS.tolist(), found, strict=True):
        assert_same(best, slow_beam_search(model, [token for token in row if token], searched))


@pytest.mark.parametrize(("backend", "precision"), [("onnx", "int8"), ("torch", "float16")])
def test_rounded_engines_say_nearly_the_same(backend: str, precision: str) -> None:
    model = random_model(
        without_mixtures(replace(SPACE.largest(), decoder=with_every_mixer(SPACE.largest())))
    )
    searched = BeamSettings.exactly(6, 2)
    forced = np.random.default_rng(1).integers(4, VOCABULARY, (6, 1, 2))
    engines = make_engine(model, backend, precision, forced=True), make_engine(model, "torch", forced=True)
    (mine,), (reference,) = (engine.search(batch(3, [5]), searched, forced) for engine in engines)
    assert abs(mine[0].log_probability - reference[0].log_probability) < 6 * TOLERANCE[precision]


def with_every_mixer(architecture: Architecture):
    """Its first three decoder layers with a mixer each."""
    mixers = ("ssru", "self_attention", "average_attention")
    return tuple(with_mixer(architecture, mixer).decoder[index] for index, mixer in enumerate(mixers))


@settings(deadline=None, max_examples=25)
@given(architecture=MEMBERS, norm=NORMS, seed=st.integers(0, 999))
def test_a_subnetwork_is_the_leading_blocks_of_the_supernet(
    architecture: Architecture, norm: str, seed: int
) -> None:
    whole = supernet(norm, seed)
    large = dict(whole.network.named_parameters())
    view, copy = whole.subnetwork(architecture), whole.extract(architecture)
    fresh = Transformer(architecture, VOCABULARY, ModelOptions(norm))
    blocks = {name: leading_block(large[name].detach(), p.shape) for name, p in fresh.named_parameters()}
    fresh.load_state_dict(blocks)
    source_BS = torch.from_numpy(batch(seed, [5, 2]))
    target_BT = torch.from_numpy(batch(seed + 1, [3, 6]))
    expected = fresh(source_BS, target_BT).hidden_BTD
    for model in (view, copy):
        torch.testing.assert_close(model(source_BS, target_BT).hidden_BTD, expected, rtol=0, atol=1e-6)
    for name, parameter in view.named_parameters():
        assert parameter.data_ptr() == large[name].data_ptr()


def test_what_a_member_lacks_does_not_move_in_its_training() -> None:
    """The largest member itself is one of those: the network holds mixers that it does not use."""
    whole = supernet()
    before = {name: p.detach().clone() for name, p in whole.network.named_parameters()}
    optimizer = BlockAdam(whole.network, betas=(0.9, 0.98), eps=1e-9)
    source_BS, target_BT = (torch.from_numpy(batch(seed, [5, 4])) for seed in (1, 2))
    member = whole.subnetwork(SPACE.largest())
    member(source_BS, target_BT).hidden_BTD.square().mean().backward()
    optimizer.step(member, 0.01)
    held = {name for name in before if ".average" in name or ".ssru" in name}
    moved = {n for n, p in whole.network.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert len(held) == 3 * (2 * 3 + 3 + 2 * 2)  # of three layers: both gates, the SSRU, and two norms
    assert {name for name in moved if ".attention." in name and name.startswith("decoder")}
    assert not moved & held


def test_a_supernet_of_one_mixer_is_as_it_was() -> None:
    largest = SPACE.largest()
    one, plain = (Supernet(largest, VOCABULARY, seed=3, mixers=m) for m in (("self_attention",), ()))
    assert one.network.state_dict().keys() == plain.network.state_dict().keys()
    assert one.subnetwork(largest) is one.network


@settings(deadline=None, max_examples=40)
@given(architecture=MEMBERS, norm=NORMS)
def test_parameters_are_those_of_the_model(architecture: Architecture, norm: str) -> None:
    with torch.device("meta"):
        model = Transformer(architecture, VOCABULARY, ModelOptions(norm))
    counts = count(architecture, MeasuringProtocol(vocabulary_size=VOCABULARY, norm=norm))
    assert counts.total_parameters == sum(parameter.numel() for parameter in model.parameters())
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert weight_shapes(architecture, VOCABULARY, norm) == shapes


@settings(deadline=None, max_examples=15)
@given(architecture=MEMBERS)
def test_decoding_flops_are_those_torch_counts(architecture: Architecture) -> None:
    """And, torch counting matrix products alone, one for each elementwise product of the formulas."""
    a = without_mixtures(architecture)
    S, T, beam = 7, 5, 3
    model = Transformer(a, VOCABULARY)
    model.initialise(0)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        state = model.start(model.encode(torch.randint(4, VOCABULARY, (1, S))), beam, T)
        for _ in range(T):
            model.logits(model.step(torch.randint(4, VOCABULARY, (1, beam)), state))
    protocol = MeasuringProtocol(source_length=S, target_length=T, vocabulary_size=VOCABULARY, beam_size=beam)
    rows, enc, dec = beam * T, a.encoder_width, a.decoder_width
    unseen = S * enc * (1 + 2 * len(a.encoder)) + rows * dec * (1 + 3 * len(a.decoder))
    unseen += a.qkv_dim * S * len(a.encoder)
    for layer in a.decoder:
        own = {"self_attention": a.qkv_dim, "average_attention": 3 * dec, "ssru": 2 * dec}[layer.mixer]
        unseen += rows * (a.qkv_dim + own)
    assert counter.get_total_flops() == count(a, protocol).total_flops - 2 * unseen


def test_what_is_kept_does_not_grow_with_the_sentence() -> None:
    """Twice as long a translation: the state of self-attention is what grows."""

    def grown(mixer: str) -> int:
        architecture = with_mixer(SPACE.largest(), mixer)
        short, long = (
            count(architecture, MeasuringProtocol(target_length=length)).memory_bytes
            for length in (2000, 4000)
        )
        return long - short

    assert grown("ssru") == grown("average_attention") == 0
    assert grown("self_attention") > 0


@settings(deadline=None, max_examples=8)
@given(architecture=MEMBERS, norm=NORMS, seed=st.integers(0, 99))
def test_both_routers_send_tokens_to_the_same_experts(
    architecture: Architecture, norm: str, seed: int
) -> None:
    model = random_model(architecture, norm, seed)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    source_BS, target_BT = batch(seed, [4, 7, 2]), batch(seed + 1, [6, 1, 3])
    found = OnnxRouter(ModelGraph(architecture, norm, weights), threads=1)(source_BS, target_BT)
    expected = ModelRouter(model)(source_BS, target_BT)
    assert found.keys() == expected.keys()
    for layer, experts in expected.items():
        np.testing.assert_array_equal(found[layer], experts)


@pytest.mark.slow
def test_a_run_searches_trains_and_reports_them(tmp_path: Path) -> None:
    toy = yaml.safe_load((RECIPES / "spaces" / "copy-toy.yaml").read_text())
    toy["decoder"] |= {"mixers": ["ssru", "average_attention", "self_attention"], "layer_counts": [1, 2]}
    (tmp_path / "mixers.yaml").write_text(yaml.safe_dump(toy))
    recipe = write_tiny_recipe(tmp_path, steps=5)
    systems = "systems=[{name: mine, search: evolution}]"
    run_here(recipe, "space=mixers.yaml", systems, "baseline=null", until="report")
    run = tmp_path / "runs" / "tiny"
    lines = pd.read_json(run / "seed-1" / "search-mine" / "candidates.jsonl", lines=True)
    layers = [layer for architecture in lines["architecture"] for layer in architecture["decoder"]]
    assert {layer.get("mixer") for layer in layers} == {"ssru", "average_attention", None}
    kept = load_file(run / "seed-1" / "supernet" / "weights.safetensors")
    for name in ("attention.q", "average.input_gate.of_mean", "ssru.candidate"):
        assert f"decoder.1.{name}.weight" in kept
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "SSRU" in page
    assert "average attention" in page


def test_the_shipped_space_is_the_small_one_with_mixers() -> None:
    small, fast = (
        load_space(RECIPES / "spaces" / f"small-cpu{more}.yaml") for more in ("", "-fast-decoders")
    )
    assert replace(fast, decoder=replace(fast.decoder, mixers=small.decoder.mixers)) == small
    assert set(fast.decoder.mixers) == {"self_attention", "average_attention", "ssru"}
