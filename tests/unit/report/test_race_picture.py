"""The picture of a race, checked by what its figure holds."""

from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from automoe.errors import InputError
from automoe.report.race_picture import draw_race
from automoe.report.style import BLUE, MUTED, VERMILLION
from helpers.figures import artists, pixels

JUDGED = [
    ("1", 100, 5.0), ("2", 100, 4.8), ("3", 100, 6.5), ("4", 100, None),
    ("2", 200, 4.0), ("1", 200, 4.2), ("3", 200, None),
    ("1", 400, 3.5), ("2", 400, 3.8),
]  # fmt: skip


def test_every_finalist_has_a_line_to_where_it_left(tmp_path: Path) -> None:
    # Judged in any order.
    figure = draw_race(JUDGED[::-1], "1", tmp_path / "race.png", dense=["2"])
    lines = {name: list(zip(line.get_xdata(), line.get_ydata(), strict=True))
             for name, line in artists(figure, "race:").items()}  # fmt: skip
    assert lines == {
        "1": [(100, 5.0), (200, 4.2), (400, 3.5)],
        "2": [(100, 4.8), (200, 4.0), (400, 3.8)],
        "3": [(100, 6.5)],
        "4": [],
    }
    assert pixels(tmp_path / "race.png")[0] > 1000


def test_only_a_divergence_is_crossed(tmp_path: Path) -> None:
    figure = draw_race([*JUDGED, ("5", 100, None), ("5", 50, 4.9)], "1", tmp_path / "race.png")
    crosses = {name: a.get_offsets().tolist() for name, a in artists(figure, "diverged:").items()}
    ((never_step, never_height),) = crosses.pop("4")
    assert crosses == {"3": [[200, 6.5]], "5": [[100, 4.9]]}
    # Without a loss of its own, where it hides none of another's.
    assert never_step == 100
    assert 6.5 < never_height < figure.axes[0].get_ylim()[1]


def test_winner_and_dense_ones_stand_out(tmp_path: Path) -> None:
    figure = draw_race(JUDGED, "1", tmp_path / "race.png", dense=["2"])
    looks = {name: (to_hex(line.get_color()).upper(), line.get_linestyle())
             for name, line in artists(figure, "race:").items()}  # fmt: skip
    assert looks == {
        "1": (VERMILLION.upper(), "-"),
        "2": (BLUE.upper(), "--"),
        "3": (MUTED.upper(), "-"),
        "4": (MUTED.upper(), "-"),
    }
    winner, *others = artists(figure, "race:").values()
    assert all(winner.get_zorder() > other.get_zorder() for other in others)


def test_the_legend_says_who_is_who_and_the_axes_their_units(tmp_path: Path) -> None:
    eight = [(f"{n}", 100, 4.0 + n) for n in range(1, 8)] + [("8", 100, None)]
    figure = draw_race(eight, "2", tmp_path / "race.png", dense=["1", "2"])
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["1 (dense)", "2 (dense, winner)", "3", "4", "5", "6", "7", "8 (diverged)"]
    box, page, plot = legend.get_window_extent(), figure.bbox, figure.axes[0].get_window_extent()
    assert plot.x1 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0 < box.y1 <= page.y1
    markers = [line.get_marker() for line in artists(figure, "race:").values()]
    assert len(set(markers)) == 8, "grey lines are told apart by their markers"
    assert "step" in figure.axes[0].get_xlabel()
    assert "nats a token" in figure.axes[0].get_ylabel()


def test_more_finalists_than_markers(tmp_path: Path) -> None:
    judged = [(f"{n}", 100, float(n)) for n in range(20)]
    figure = draw_race(judged, "0", tmp_path / "race.png")
    assert len(artists(figure, "race:")) == 20


def test_every_problem_of_a_race_is_listed(tmp_path: Path) -> None:
    judged = [*JUDGED, ("2", 400, 3.0), ("4", 200, 3.0), ("5", 100, float("nan"))]
    with pytest.raises(InputError) as caught:
        draw_race(judged, "3", tmp_path / "race.png", dense=["6", "1"])
    assert caught.value.problems == (
        "2: judged 2 times at step 400; keep one",
        "5: a loss of nan at step 100; a divergence is None",
        "4: judged at step 200, but diverged at 100; end it there",
        "6: was never judged (judged: 1, 2, 3, 4, 5); name a finalist",
        "3: is the winner, but diverged at step 200; name another",
    )
    assert not (tmp_path / "race.png").exists()


def test_an_empty_race_has_no_winner(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1: was never judged \(judged: none\)"):
        draw_race([], "1", tmp_path / "race.png")
