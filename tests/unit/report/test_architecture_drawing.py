"""The drawing of an architecture, checked by what its figure holds."""

import dataclasses
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.report import architecture_drawing
from helpers.figures import artists, pixels

ARCHITECTURE = Architecture(
    encoder_width=64,
    decoder_width=48,
    qkv_dim=64,
    encoder=(
        EncoderLayer(4, (128, 256, 0), top_k=2),
        EncoderLayer(8, (512,)),
        EncoderLayer(1, (64,)),
    ),
    decoder=(
        DecoderLayer(4, 2, (512, 128)),
        DecoderLayer(8, 4, (384,), encoder_layers_attended=3),
    ),
)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def expert_sizes(architecture: Architecture) -> dict[str, int]:
    stacks = {"encoder": architecture.encoder, "decoder": architecture.decoder}
    return {
        f"{stack}.{index}.{expert}": size
        for stack, layers in stacks.items()
        for index, layer in enumerate(layers)
        for expert, size in enumerate(layer.ffn_sizes)
    }


def test_one_bar_an_expert_all_to_one_scale(tmp_path: Path) -> None:
    figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title")
    bars, sizes = artists(figure, "expert:"), expert_sizes(ARCHITECTURE)
    assert bars.keys() == sizes.keys()
    inches_per_unit = {bars[name].get_width() / size for name, size in sizes.items() if size}
    assert max(inches_per_unit) == pytest.approx(min(inches_per_unit))


def test_a_mixer_without_heads_is_named(tmp_path: Path) -> None:
    layers = (DecoderLayer(0, 2, (64,), mixer="ssru"), DecoderLayer(0, 2, (64,), mixer="average_attention"))
    architecture = dataclasses.replace(ARCHITECTURE, decoder=layers)
    figure = architecture_drawing.draw(architecture, tmp_path / "a.png", "title")
    assert artists(figure, "SSRU:").keys() == {"decoder.0"}
    assert artists(figure, "average:").keys() == {"decoder.1"}
    words = texts(figure)
    assert (words.count("SSRU"), words.count("average"), words.count("self")) == (1, 1, 3)
    assert sum("head" in word for word in words) == 3 + 2  # of the encoder, and of cross-attention


def test_only_an_identity_expert_is_dashed(tmp_path: Path) -> None:
    figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title")
    dashed = {n for n, bar in artists(figure, "expert:").items() if bar.get_linestyle() not in ("-", "solid")}
    assert dashed == {"encoder.0.2"}
    assert texts(figure).count("identity") == 1


def test_routers_attention_and_words(tmp_path: Path) -> None:
    figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "98 ms, 13 BLEU")
    assert artists(figure, "router:").keys() == {"encoder.0", "decoder.0"}
    assert artists(figure, "self:").keys() == {f"encoder.{i}" for i in range(3)} | {
        "decoder.0",
        "decoder.1",
    }
    assert artists(figure, "cross:").keys() == {"decoder.0", "decoder.1"}
    words = texts(figure)
    assert "98 ms, 13 BLEU" in words
    heads = sorted(word for word in words if word.endswith(("head", "heads")))
    assert heads == ["1 head", "2 heads", "4 heads", "4 heads", "4 heads", "8 heads", "8 heads"]


def test_a_curve_starts_at_the_middle_of_the_layers_attended_to(tmp_path: Path) -> None:
    figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title")
    cards, curves = artists(figure, "layer:"), artists(figure, "span:")
    crosses = artists(figure, "cross:")
    for decoder, first in (("decoder.0", "encoder.2"), ("decoder.1", "encoder.0")):
        points = curves[decoder].get_path().vertices
        low, last = cards[first], cards["encoder.2"]
        middle = (low.get_y() + last.get_y() + last.get_height()) / 2
        assert points[0][1] == pytest.approx(middle)
        box = crosses[decoder]
        assert points[-1] == pytest.approx([box.get_x(), box.get_y() + box.get_height() / 2])


def test_routing_shares_shade_their_bars(tmp_path: Path) -> None:
    shares = {"decoder.0": [0.9, 0.1]}
    figure = architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title", shares)
    bars = artists(figure, "expert:")
    busy, idle = (sum(bars[f"decoder.0.{i}"].get_facecolor()[:3]) for i in (0, 1))
    assert busy < idle, "the busier expert is the darker one"
    assert {"512   90%", "128   10%"} <= set(texts(figure))


def test_shares_of_another_number_of_experts_are_all_refused(tmp_path: Path) -> None:
    shares = {"decoder.0": [1.0], "encoder.7": [0.5, 0.5]}
    with pytest.raises(ValueError, match=r"decoder\.0: 1 shares for 2 experts; encoder\.7: 2 shares for 0"):
        architecture_drawing.draw(ARCHITECTURE, tmp_path / "a.png", "title", shares)


@pytest.mark.parametrize(
    "architecture",
    [
        dense(512, 2048, 8, 1, 1),
        Architecture(8, 8, 8, (EncoderLayer(8, (0,)),), (DecoderLayer(8, 8, (0, 0)),)),
        Architecture(64, 64, 64, (EncoderLayer(8, (2048,) * 16),), (DecoderLayer(8, 8, (3072,) * 16),)),
    ],
    ids=["one layer", "only identity experts", "sixteen experts"],
)  # fmt: skip
def test_nothing_leaves_the_picture_or_its_card(architecture: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    shares = {
        f"decoder.{i}": [1 / len(d.experts)] * len(d.experts) for i, d in enumerate(architecture.decoder)
    }
    figure = architecture_drawing.draw(architecture, path, "title", shares)
    page = figure.bbox
    cards = artists(figure, "layer:")
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 < box.x1 <= page.x1, text.get_text()
        assert page.y0 <= box.y0 < box.y1 <= page.y1, text.get_text()
        if text.get_text().endswith("%"):
            assert any(
                c.get_window_extent().x0 < box.x0 and box.x1 < c.get_window_extent().x1
                for c in cards.values()
            )
    for name, bar in artists(figure, "expert:").items():
        card = cards[name.rsplit(".", 1)[0]]
        assert card.get_y() < bar.get_y()
        assert bar.get_y() + bar.get_height() < card.get_y() + card.get_height()
    assert pixels(path)[0] > 1000


def test_svg_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        architecture_drawing.draw(ARCHITECTURE, tmp_path / name, "title")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
