"""The look that all pictures share: quiet axes, few colours, colour-blind-safe, on white."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from automoe.storage import whole_file

INK = "#1f2328"
MUTED = "#6e7781"
FAINT = "#d0d7de"

# Okabe and Ito's palette, which the usual forms of colour blindness keep apart.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK)

# Any: matplotlib types the names of its settings, and a dict of ours is not of that type.
STYLE: Any = {
    "figure.dpi": 160,
    "savefig.dpi": "figure",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "automoe",  # the same input gives the same file
}
"""matplotlib's settings; every picture is drawn and saved inside `matplotlib.rc_context(STYLE)`."""


def tint(colour: str, strength: float) -> str:
    """`colour` mixed with white: 1 is the colour itself, 0 is white."""
    red, green, blue = (1 - strength * (1 - channel) for channel in to_rgb(colour))
    return to_hex((red, green, blue))


def save(figure: Figure, path: str | Path) -> None:
    """Write the picture in the format of the suffix (.png, .svg, .pdf), on white.

    Raises:
        InputError: the folder is missing, or the disk is full or refuses.
    """
    path = Path(path)
    # No date in the file: the same input gives the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], facecolor="white", metadata=metadata)
