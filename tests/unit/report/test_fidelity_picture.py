"""The picture of fidelity, checked by what its figure holds; tau by counting pairs."""

from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.artist import Artist
from matplotlib.colors import to_hex, to_rgba
from matplotlib.text import Text

from automoe.errors import InputError
from automoe.report.fidelity_picture import Point, draw_fidelity
from automoe.report.style import BLUE, GREEN, INK, VERMILLION
from helpers.figures import artists, pixels

POINTS = [
    Point(3.0, 4.0, 1.0, within_budget=True),
    Point(3.1, 3.9, 1.0, within_budget=False),
    Point(3.2, 4.5, 1.25, within_budget=False),
    Point(3.3, 4.6, 2.0, within_budget=True),
    Point(3.4, 5.1, 2.25, within_budget=True),
    Point(3.5, 5.0, 4.0, within_budget=False),
]
LIKE = [Point(float(n), float(n), 1.0, within_budget=False) for n in (1, 2, 3)]


def titles(panels: dict[str, list[Point]], path: Path) -> list[str]:
    return [axes.get_title(loc="left") for axes in draw_fidelity(panels, path).axes]


def test_every_member_is_a_dot_of_its_groups_colour(tmp_path: Path) -> None:
    figure = draw_fidelity({"sandwich": POINTS, "uniform": LIKE}, tmp_path / "fidelity.png")
    for group, colour, expected in (
        ("dense", BLUE, [[3.0, 4.0], [3.1, 3.9]]),
        ("few", GREEN, [[3.2, 4.5], [3.3, 4.6]]),
        ("many", VERMILLION, [[3.4, 5.1], [3.5, 5.0]]),
    ):
        dots = artists(figure, f"{group}:")["sandwich"]
        assert dots.get_offsets().tolist() == expected
        assert to_hex(dots.get_facecolor()[0]).upper() == colour.upper()
        assert dots.axes is figure.axes[0]
    assert artists(figure, "dense:")["uniform"].axes is figure.axes[1]
    assert "uniform" not in artists(figure, "many:")
    assert pixels(tmp_path / "fidelity.png")[0] > 1000


def test_members_within_the_budget_have_an_outline(tmp_path: Path) -> None:
    figure = draw_fidelity({"sandwich": POINTS}, tmp_path / "fidelity.png")
    inked = {
        tuple(place)
        for group in ("dense:", "few:", "many:")
        for place, edge in zip(
            artists(figure, group)["sandwich"].get_offsets().tolist(),
            artists(figure, group)["sandwich"].get_edgecolors(),
            strict=True,
        )
        if tuple(edge) == to_rgba(INK)
    }
    assert inked == {(p.own_loss, p.inherited_loss) for p in POINTS if p.within_budget}


def is_axis_label(artist: Artist) -> bool:
    return isinstance(artist, Text) and "validation loss" in artist.get_text()


@pytest.mark.parametrize("rules", [1, 2, 4])
def test_the_legend_names_every_colour_and_the_outline_and_covers_nothing(rules: int, tmp_path: Path) -> None:
    figure = draw_fidelity({f"rule {n}": POINTS for n in range(rules)}, tmp_path / "fidelity.png")
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["dense", "few: up to 2 experts a layer", "many: more than 2", "within the budget"]
    box, page, label = legend.get_window_extent(), figure.bbox, figure.findobj(is_axis_label)
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert len(label) == 2
    assert not any(box.overlaps(text.get_window_extent()) for text in label)
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)


def test_a_title_has_the_rule_and_the_rank_correlation(tmp_path: Path) -> None:
    pairs = list(combinations(POINTS, 2))
    agreeing = sum((a.own_loss < b.own_loss) == (a.inherited_loss < b.inherited_loss) for a, b in pairs)
    tau = (2 * agreeing - len(pairs)) / len(pairs)
    upside_down = [Point(p.own_loss, -p.inherited_loss, 1.0, within_budget=False) for p in LIKE]
    flat = [Point(p.own_loss, 4.0, 1.0, within_budget=False) for p in LIKE]
    panels = {"sandwich": POINTS, "like": LIKE, "upside down": upside_down, "flat": flat, "one": LIKE[:1]}
    assert titles(panels, tmp_path / "fidelity.png") == [
        f"sandwich, τ {tau:.2f}", "like, τ 1.00", "upside down, τ -1.00", "flat, τ –", "one, τ –",
    ]  # fmt: skip


def test_one_panel_a_rule_and_axes_with_units(tmp_path: Path) -> None:
    panels = {f"rule {n}": POINTS for n in range(4)}
    figure = draw_fidelity(panels, tmp_path / "fidelity.png")
    assert len(figure.axes) == 4
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    # The last panel of each column says its losses.
    assert [any(label.get_text() and label.get_visible() for label in axes.get_xticklabels())
            for axes in figure.axes] == [False, True, True, True]  # fmt: skip
    assert figure.get_supxlabel() == "own validation loss, trained from scratch (nats a token)"
    assert figure.get_supylabel() == "inherited validation loss (nats a token)"


def test_every_problem_of_the_members_is_listed(tmp_path: Path) -> None:
    bad = [Point(float("nan"), float("inf"), 0.5, within_budget=True), LIKE[0]]
    with pytest.raises(InputError) as caught:
        draw_fidelity({"none": [], "sandwich": bad}, tmp_path / "fidelity.png")
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "none", "sandwich[0].own_loss", "sandwich[0].inherited_loss", "sandwich[0].experts",
    ]  # fmt: skip
    with pytest.raises(InputError, match="at least one rule"):
        draw_fidelity({}, tmp_path / "fidelity.png")
