"""Pictures of latencies: what is drawn where, read back from the figure."""

import pytest
from matplotlib.colors import to_hex

from automoe.cost.device.profile import LatencyParts, PartLatency
from automoe.report.latency_pictures import predicted_against_measured, where_the_time_goes
from automoe.report.style import BLUE, VERMILLION

PARTS = LatencyParts(
    latency_ms=21.0,
    encoder_ms=6.0,
    decoder_ms=15.0,
    parts=(
        PartLatency("decoder", None, "overhead", 1.0),
        PartLatency("decoder", None, "output", 7.0),
        PartLatency("decoder", 0, "attention", 3.0),
        PartLatency("decoder", 0, "experts", 4.0),
        PartLatency("encoder", 1, "attention", 2.0),
        PartLatency("encoder", 0, "attention", 3.0),
        PartLatency("encoder", 0, "experts", 0.0),
        PartLatency("encoder", None, "overhead", 1.0),
    ),
)


def test_every_architecture_is_a_point(tmp_path):
    figure = predicted_against_measured([10.0, 20.0], [11.0, 19.0], tmp_path / "check.png", "Check")
    axes = figure.axes[0]
    (points,) = [c for c in axes.collections if c.get_gid() == "architectures"]
    assert points.get_offsets().tolist() == [[11.0, 10.0], [19.0, 20.0]]
    assert axes.get_xlim() == axes.get_ylim()
    assert (tmp_path / "check.png").stat().st_size > 1000


def test_unequal_or_no_latencies_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 predicted"):
        predicted_against_measured([1.0, 2.0], [1.0], tmp_path / "check.png", "Check")
    with pytest.raises(ValueError, match="0 predicted"):
        predicted_against_measured([], [], tmp_path / "check.png", "Check")


def test_every_part_is_a_piece_of_its_layers_bar(tmp_path):
    figure = where_the_time_goes(PARTS, tmp_path / "time.svg", "a batch of 4 sentences")
    assert figure.axes[0].get_xlabel() == "ms a batch of 4 sentences"
    assert figure.axes[0].get_title(loc="left") == "Where the time of a batch of 4 sentences goes"
    axes = figure.axes[0]
    pieces = {bar.get_gid(): bar for bar in axes.patches}
    assert {gid: bar.get_width() for gid, bar in pieces.items()} == {
        "attention:encoder.0": 3.0,
        "attention:encoder.1": 2.0,
        "overhead:encoder": 1.0,
        "attention:decoder.0": 3.0,
        "experts:decoder.0": 4.0,
        "output:decoder": 7.0,
        "overhead:decoder": 1.0,
    }
    assert pieces["experts:decoder.0"].get_x() == 3.0  # stacked behind the attention
    assert to_hex(pieces["attention:decoder.0"].get_facecolor()).upper() == BLUE.upper()
    assert to_hex(pieces["experts:decoder.0"].get_facecolor()).upper() == VERMILLION.upper()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:3] == ["encoder layer 1", "encoder layer 2", "encoder as a whole"]
    assert axes.yaxis_inverted()
