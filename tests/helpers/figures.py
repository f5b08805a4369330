"""What a figure holds, read back from it or from the picture it was saved as."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread


def artists(figure: Figure, prefix: str) -> dict[str, object]:
    """What the figure draws, by gid without the prefix."""
    found = list(figure.findobj(lambda a: (a.get_gid() or "").startswith(prefix)))
    by_gid = {a.get_gid().removeprefix(prefix): a for a in found}
    assert len(by_gid) == len(found), "a gid was used twice"
    return by_gid


def pixels(path: Path) -> tuple[int, int]:
    height, width, _ = imread(path).shape
    return width, height
