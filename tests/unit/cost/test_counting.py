"""Counts against the published tables, and against figures worked out by hand."""

import csv
from dataclasses import replace

import pytest

from automoe.cost.counting import count
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.design.architecture_file import load_architecture
from automoe.errors import InputError
from helpers.paths import RECIPES, TEST_DATA

HAT = TEST_DATA / "hat"
PUBLISHED = list(csv.DictReader((HAT / "hat_published.csv").read_text(encoding="utf-8").splitlines()))
ARCHITECTURES = RECIPES / "architectures"


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["config"])
def test_hat_published_figures_to_their_two_decimals(row: dict[str, str]) -> None:
    counts = count(load_architecture(HAT / row["config"]))
    assert f"{counts.parameters / 1e6:.2f}" == row["params_m"]
    assert f"{counts.flops / 1e9:.2f}" == row["flops_g"]


@pytest.mark.parametrize(
    ("architecture", "parameters", "flops"),
    [
        (dense(512, 2048, 8, 6, 6), 44_138_496, 2_677_125_348),
        (dense(1024, 4096, 16, 6, 6), 176_357_376, 10_639_073_508),
        (load_architecture(HAT / "HAT_wmt14ende_xeon@369.6ms_bleu@28.2.yml"), 51_480_064, 3_213_588_696),
    ],
    ids=["Transformer-Base", "Transformer-Big", "HAT"],
)
def test_figures_known_to_the_last_digit(architecture: Architecture, parameters: int, flops: int) -> None:
    counts = count(architecture)
    assert (counts.parameters, counts.active_parameters, counts.sparsity) == (parameters, parameters, 0)
    assert (counts.flops, counts.flops_min, counts.flops_max) == (flops, flops, flops)


@pytest.mark.parametrize(
    ("name", "active_millions"),
    [("automoe-wmt14-en-de", 45.7), ("automoe-wmt14-en-fr", 45.9), ("automoe-wmt19-en-de", 43.9)],
)
def test_the_shipped_automoe_architectures_cost_what_their_comments_say(
    name: str, active_millions: float
) -> None:
    assert f"{count(load_architecture(ARCHITECTURES / f'{name}.yaml')).active_parameters / 1e6:.1f}" == str(
        active_millions
    )


def test_the_shipped_classics_are_the_classics() -> None:
    assert load_architecture(ARCHITECTURES / "transformer-base.yaml") == dense(512, 2048, 8, 6, 6)
    assert load_architecture(ARCHITECTURES / "transformer-big.yaml") == dense(1024, 4096, 16, 6, 6)


# Width 4 and 6, qkv 8. One encoder layer with experts of 10, 20 and 0 (identity), two a token; one
# dense decoder layer with an FFN of 5.
MIXED = Architecture(4, 6, 8, (EncoderLayer(2, (10, 20, 0), top_k=2),), (DecoderLayer(2, 4, (5,)),))
# Parameters, layer by layer.
ENCODER_ATTENTION = 3 * (4 * 8 + 8) + (8 * 4 + 4)
EXPERT_10, EXPERT_20 = (4 * 10 + 10) + (10 * 4 + 4), (4 * 20 + 20) + (20 * 4 + 4)
ENCODER_ALWAYS = ENCODER_ATTENTION + 4 * 3 + 2 * (4 + 4)  # router, two layer norms
SELF_ATTENTION = 3 * (6 * 8 + 8) + (8 * 6 + 6)
CROSS_ATTENTION = (6 * 8 + 8) + 2 * (4 * 8 + 8) + (8 * 6 + 6)
DECODER = SELF_ATTENTION + CROSS_ATTENTION + (6 * 5 + 5) + (5 * 6 + 6) + 3 * (6 + 6)
ALWAYS = ENCODER_ALWAYS + DECODER


def test_parameters_of_a_mixture_by_hand() -> None:
    counts = count(MIXED, MeasuringProtocol(vocabulary_size=100))
    assert counts.parameters == ALWAYS + EXPERT_10 + EXPERT_20
    # Two of three experts, each equally likely.
    assert counts.active_parameters == round(ALWAYS + (EXPERT_10 + EXPERT_20) * 2 / 3)
    assert counts.sparsity == pytest.approx((EXPERT_10 + EXPERT_20) / 3 / counts.parameters)
    # One embedding for source, target and output, as wide as the wider stack.
    assert counts.total_parameters == counts.parameters + 100 * 6
    # Before-norm has a final norm a stack.
    assert count(MIXED, MeasuringProtocol(norm="pre")).parameters == counts.parameters + 2 * 4 + 2 * 6


def test_parameters_under_given_routing() -> None:
    shares = {"encoder.0": (0.5, 0.2, 0.3)}
    counts = count(MIXED, routing_shares=shares)
    assert counts.active_parameters == round(ALWAYS + 2 * (0.5 * EXPERT_10 + 0.2 * EXPERT_20))


def test_flops_of_a_mixture_by_hand() -> None:
    S, T = 3, 2
    linear = S * 4 * 4 * 8 + S * 4 * 3  # encoder attention, router
    linear += T * 4 * 6 * 8 + T * 2 * 6 * 8 + 2 * S * 4 * 8 + T * 2 * 6 * 5
    attention = 2 * 8 * (S * S + T * T + T * S)
    norm = 2 * S * 4 + 3 * T * 6
    scaling = S * 4 + T * 6 + S * 8 + 2 * T * 8
    gates = 2 * S * 4
    traced = S + T + 3 * 3
    fixed = linear + attention + norm + scaling + gates + traced

    def with_experts(active_size: float) -> int:
        return round(2 * (fixed + S * 2 * 4 * active_size))

    counts = count(MIXED, MeasuringProtocol(source_length=S, target_length=T))
    assert counts.flops == with_experts(30 * 2 / 3)
    assert counts.flops_min == with_experts(0 + 10)
    assert counts.flops_max == with_experts(20 + 10)
    skewed = count(
        MIXED,
        MeasuringProtocol(source_length=S, target_length=T),
        routing_shares={"encoder.0": [0.1, 0.5, 0.4]},
    )
    assert skewed.flops == with_experts(2 * (0.1 * 10 + 0.5 * 20))


def test_decoding_flops_by_stepping_through_it() -> None:
    """Every step of every beam counted on its own, with the keys cached so far."""
    a = replace(
        MIXED, encoder=MIXED.encoder * 2, decoder=(replace(MIXED.decoder[0], encoder_layers_attended=2),)
    )
    S, T, beam, V = 3, 4, 5, 100
    layer = S * 4 * 4 * 8 + 2 * S * S * 8 + S * 4 * 3 + S * 2 * 4 * (30 * 2 / 3)
    layer += 2 * S * 4 + S * 8 + 2 * S * 4  # norms, queries, gates
    macs = 2 * layer + S * 4
    macs += 2 * (2 * S) * 4 * 8  # keys and values of two encoder layers' outputs, once for all beams
    for cached in range(1, T + 1):
        for _ in range(beam):
            macs += 6  # embedding
            macs += 4 * 6 * 8 + 2 * cached * 8 + 8
            macs += 2 * 6 * 8 + 2 * (2 * S) * 8 + 8
            macs += 2 * 6 * 5 + 3 * 6
            macs += 6 * V
    counts = count(a, MeasuringProtocol(source_length=S, target_length=T, beam_size=beam, vocabulary_size=V))
    assert counts.total_flops == round(2 * macs)


def test_a_shortlist_makes_the_output_layer_smaller() -> None:
    whole = MeasuringProtocol(target_length=4, beam_size=5, vocabulary_size=1000)
    short, longer = replace(whole, shortlist=100), replace(whole, shortlist=2000)
    before, after = count(MIXED, whole), count(MIXED, short)
    assert before.total_flops - after.total_flops == 2 * 4 * 5 * MIXED.decoder_width * 900
    assert (before.flops, before.total_parameters) == (after.flops, after.total_parameters)
    assert count(MIXED, longer).total_flops == before.total_flops


def test_a_shortlists_rows_are_held_beside_the_logits() -> None:
    a = dense(8, 16, 2, 1, 2)
    whole = MeasuringProtocol(source_length=3, target_length=4, beam_size=90, vocabulary_size=1000)
    before, after = (count(a, p).memory_bytes for p in (whole, replace(whole, shortlist=900)))
    assert before - after == 4 * (100 * 90 - 900 * 8)


def test_attending_to_more_layers_costs_flops_and_memory_but_no_parameters() -> None:
    one = dense(512, 2048, 8, 6, 1)
    three = replace(one, decoder=(replace(one.decoder[0], encoder_layers_attended=3),))
    before, after = count(one), count(three)
    assert after.total_parameters == before.total_parameters
    # Two more layers' keys and values, and the two products with them.
    assert after.flops - before.flops == 2 * (2 * 60 * 512 * 512 + 2 * 30 * 60 * 512)
    assert after.memory_bytes > before.memory_bytes


def test_memory_is_the_weights_and_the_widest_moment_of_encoder_or_decoder() -> None:
    a = dense(8, 16, 2, 1, 2)
    counts = count(a, MeasuringProtocol(source_length=3, target_length=4, beam_size=2, vocabulary_size=1000))
    cache = 2 * 2 * 8 * (2 * 4 + 3)
    peak = 3 * 8 + cache + 2 * 1000  # encoder output, cache, logits
    assert counts.memory_bytes == 4 * (counts.total_parameters + peak)
    # A long source and a shallow decoder: the encoder's widest moment (q, k, v, mixture) counts.
    a = dense(8, 16, 2, 1, 1)
    counts = count(a, MeasuringProtocol(source_length=1000, target_length=1, beam_size=1, vocabulary_size=5))
    assert counts.memory_bytes == 4 * (counts.total_parameters + 1000 * 8 + 1000 * (8 + 4 * 8))


def test_impossible_shares_are_all_listed() -> None:
    two = replace(MIXED, encoder=MIXED.encoder * 3)
    shares = {
        "encoder.0": [0.5, 0.5],
        "encoder.1": [0.9, 0.1, 0.0],  # two different experts a token: at most one half each
        "encoder.2": [0.3, 0.3, 0.3],
        "encoder.7": [1.0],
    }
    with pytest.raises(InputError) as caught:
        count(two, routing_shares=shares)
    assert sorted(problem.split(":")[0] for problem in caught.value.problems) == sorted(shares)


def test_lengths_must_be_positive() -> None:
    with pytest.raises(InputError) as caught:
        count(MIXED, MeasuringProtocol(source_length=0, beam_size=-1))
    assert len(caught.value.problems) == 2
