"""The paper's analyses against counts by hand and a model that was built; the spaces of its Table 7."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from automoe.cost.device.profile import LatencyParts
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.design.space import load_space
from automoe.errors import InputError
from automoe.model.transformer import Transformer
from automoe.report.analyses import (
    EncoderShare,
    ExpertCounts,
    LayerExperts,
    StackSplit,
    analyses_markdown,
    draw_expert_counts,
    encoder_share,
    expert_counts,
)
from helpers.figures import artists, pixels
from helpers.paths import RECIPES

WIDE = Architecture(
    encoder_width=8,
    decoder_width=12,
    qkv_dim=8,
    encoder=(EncoderLayer(2, (16, 0, 8), top_k=2), EncoderLayer(4, (24,))),
    decoder=(DecoderLayer(2, 4, (8, 32), encoder_layers_attended=2),),
)
DEEP = replace(WIDE, decoder=(DecoderLayer(2, 4, (8,)), DecoderLayer(2, 4, (8,) * 4)))
COUNTS = ExpertCounts(
    encoder=(LayerExperts(2.0, 1, 3, 3), LayerExperts(1.0, 1, 1, 2)),
    decoder=(LayerExperts(2.5, 2, 3, 3),),
)


def test_experts_are_averaged_over_the_architectures_that_have_the_layer() -> None:
    shallow = dense(8, 16, 2, 1, 1)
    assert expert_counts([WIDE, DEEP, shallow]) == ExpertCounts(
        encoder=(LayerExperts(pytest.approx(7 / 3), 1, 3, 3), LayerExperts(1, 1, 1, 2)),
        decoder=(LayerExperts(pytest.approx(4 / 3), 1, 2, 3), LayerExperts(4, 4, 4, 1)),
    )


def test_no_architectures_have_no_experts() -> None:
    with pytest.raises(InputError, match="give at least one"):
        expert_counts([])


def test_a_bar_is_a_layers_mean_and_its_line_the_range(tmp_path: Path) -> None:
    figure = draw_expert_counts(COUNTS, tmp_path / "experts.png")
    bars = {name: (bar.get_x() + bar.get_width() / 2, bar.get_height())
            for name, bar in artists(figure, "mean:").items()}  # fmt: skip
    assert bars == {
        "encoder.0": (pytest.approx(1), 2.0),
        "encoder.1": (pytest.approx(2), 1.0),
        "decoder.0": (pytest.approx(1), 2.5),
    }
    ranges = {name: (list(line.get_xdata()), list(line.get_ydata()))
              for name, line in artists(figure, "spread:").items()}  # fmt: skip
    assert ranges == {
        "encoder.0": ([1, 1], [1, 3]),
        "encoder.1": ([2, 2], [1, 1]),
        "decoder.0": ([1, 1], [2, 3]),
    }
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["encoder", "decoder"]
    assert tick_labels(figure) == [["1\n(3)", "2\n(2)"], ["1\n(3)"]]
    assert artists(figure, "mean:")["encoder.0"].axes is figure.axes[0]
    assert artists(figure, "mean:")["decoder.0"].axes is figure.axes[1]
    assert pixels(tmp_path / "experts.png")[0] > 800


def tick_labels(figure: Figure) -> list[list[str]]:
    return [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]


@pytest.mark.parametrize("architecture", [WIDE, DEEP, dense(8, 16, 2, 3, 1)], ids=["wide", "deep", "dense"])
def test_parameters_are_those_of_the_built_models_layers(architecture: Architecture) -> None:
    model = Transformer(architecture, 50)
    built = dict.fromkeys(("encoder", "decoder"), 0)
    for name, parameter in model.named_parameters():
        stack = name.split(".")[0]
        if stack in built:
            built[stack] += parameter.numel()
    shares = encoder_share(architecture)
    assert (shares.parameters.encoder, shares.parameters.decoder) == (built["encoder"], built["decoder"])
    assert shares.parameters.encoder_share == built["encoder"] / (built["encoder"] + built["decoder"])
    # A last norm belongs to no layer.
    assert encoder_share(architecture, protocol=MeasuringProtocol(norm="pre")).parameters == shares.parameters


def test_experts_and_flops_by_hand() -> None:
    S, T, q, enc, dec = 5, 3, 8, 8, 12
    # Norm, linear layers, both products of the attention, scaling of the queries, 3 that HAT's tracer saw.
    self_attention = S * enc + 4 * S * enc * q + 2 * S * S * q + S * q + 3
    mixture = S * enc + 3 * S * enc + 2 * S * enc + S * 2 * enc * (16 + 0 + 8) * 2 / 3  # router, 2 gates
    encoder = 2 * self_attention + mixture + (S * enc + S * 2 * enc * 24)
    own = T * dec + 4 * T * dec * q + 2 * T * T * q + T * q + 3
    cross = T * dec + 2 * T * dec * q + 2 * (2 * S) * enc * q + 2 * T * (2 * S) * q + T * q + 3
    decoder = own + cross + T * dec + 2 * T * dec + T * dec + T * 2 * dec * (8 + 32) / 2
    shares = encoder_share(WIDE, protocol=MeasuringProtocol(source_length=S, target_length=T))
    assert shares.experts == StackSplit(4, 2)
    # Counts are whole numbers: a layer's may be one off.
    assert shares.flops.encoder == pytest.approx(2 * encoder, abs=2)
    assert shares.flops.decoder == pytest.approx(2 * decoder, abs=1)


def test_time_is_the_stacks_where_it_is_predicted() -> None:
    shares = encoder_share(WIDE, LatencyParts(20.0, 5.0, 15.0, ()))
    assert shares.latency_ms == StackSplit(5.0, 15.0)
    assert shares.latency_ms.encoder_share == 0.25
    assert encoder_share(WIDE).latency_ms is None


def test_the_section_to_the_last_character() -> None:
    shares = {
        "auto|moe": EncoderShare(
            StackSplit(9, 1), StackSplit(3e6, 1e6), StackSplit(1e9, 1e9), StackSplit(1.5, 6.0)
        ),
        "dense": EncoderShare(StackSplit(1, 1), StackSplit(2e6, 3e6), StackSplit(0.7e9, 0.3e9)),
    }
    assert analyses_markdown(shares, {"supernet": 30.26, "search": 4.0, "training of dense": 0.5}) == (
        "### Encoder and decoder\n\n"
        "Share of the encoder / of the decoder. Parameters and FLOPs by the papers' accounting, of the "
        "layers, for experts equally likely; time as predicted, the decoder's with the output layer.\n\n"
        "| system | experts | parameters | FLOPs | time |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| auto\\|moe | 90% / 10% | 75% / 25% | 50% / 50% | 20% / 80% |\n"
        "| dense | 50% / 50% | 40% / 60% | 70% / 30% | – |\n"
        "\n"
        "### Cost of the search\n\n"
        "| step | minutes |\n"
        "| --- | ---: |\n"
        "| supernet | 30.3 |\n"
        "| search | 4.0 |\n"
        "| training of dense | 0.5 |\n"
        "| all together | 34.8 |\n"
    )


def test_an_empty_table_is_left_out() -> None:
    assert analyses_markdown({}, {"search": 1.0}).startswith("### Cost of the search\n")
    assert "Cost" not in analyses_markdown({"hat": encoder_share(WIDE)}, {})


def test_every_impossible_time_is_listed() -> None:
    minutes = {"supernet": -1.0, "search": 2.0, "finals": float("nan"), "training": float("inf")}
    with pytest.raises(InputError) as caught:
        analyses_markdown({}, minutes)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["supernet", "finals", "training"]


VARIANTS = {path.stem: path for path in sorted((RECIPES / "spaces" / "variants").glob("*.yaml"))}


def one_size(count: int, index: int, sizes: tuple[int, ...]) -> bool:
    return len(set(sizes)) == 1


def no_identity(count: int, index: int, sizes: tuple[int, ...]) -> bool:
    return 0 not in sizes


def everywhere(count: int, index: int, sizes: tuple[int, ...]) -> bool:
    return count == 4


def every_second(count: int, index: int, sizes: tuple[int, ...]) -> bool:
    return count == (1, 4, 1, 4)[index]


@pytest.mark.parametrize(
    ("name", "holding"),
    [
        ("fractional", {no_identity}),
        ("standard", {no_identity, one_size}),
        ("identity", set()),
        ("every", {no_identity, everywhere}),
        ("every-other", {no_identity, every_second}),
    ],
)
def test_a_variant_has_the_property_it_names_and_no_other(
    name: str, holding: set[Callable[[int, int, tuple[int, ...]], bool]], rng: random.Random
) -> None:
    space = load_space(VARIANTS[name])
    layers = [
        (len(layer.experts), index, layer.ffn_sizes)
        for member in (space.sample(rng) for _ in range(200))
        for stack in (member.encoder, member.decoder)
        for index, layer in enumerate(stack)
    ]
    properties = {no_identity, one_size, everywhere, every_second}
    assert {holds for holds in properties if all(holds(*layer) for layer in layers)} == holding


def test_variants_differ_in_one_thing_each() -> None:
    spaces = {name: load_space(path) for name, path in VARIANTS.items()}
    base = spaces["fractional"]
    sizes = (0, *base.encoder.ffn_sizes)
    assert spaces == {
        "fractional": base,
        "standard": replace(base, experts="standard"),
        "identity": replace(
            base,
            encoder=replace(base.encoder, ffn_sizes=sizes),
            decoder=replace(base.decoder, ffn_sizes=sizes),
        ),
        "every": replace(base, placement="every"),
        "every-other": replace(base, placement="every_other"),
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_explain_every_line(name: str) -> None:
    for line in VARIANTS[name].read_text().splitlines():
        assert not line.strip() or "#" in line or line in ("encoder:", "decoder:")
