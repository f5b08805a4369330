"""The files that both pages use: the server sends them, a report holds their text."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
"""The folder of `look.css`, `expert_grid.css` and `expert_grid.js`."""
