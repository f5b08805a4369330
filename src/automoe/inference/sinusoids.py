"""Sinusoidal positions in numpy, equal to the model's.

Shapes: L positions, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rates_and_phases(width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Position p has in column d `sin(p * rate_d + phase_d)`, float32 and float64, (D,) each."""
    columns_D = np.arange(width)
    rates_D = (10000.0 ** (-(columns_D // 2).astype(np.float32) * 2 / width)).astype(np.float32)
    return rates_D, np.where(columns_D % 2, np.pi / 2, 0.0)  # cos(x) = sin(x + pi / 2), exact in float64


def sinusoids(steps_L1: NDArray[Any], width: int) -> NDArray[Any]:
    """As `automoe.model.attention.sinusoidal_positions`."""
    rates_D, phases_D = rates_and_phases(width)
    angles_LD = (steps_L1.astype(np.float32) * rates_D).astype(np.float64)
    waves_LD: NDArray[Any] = np.sin(angles_LD + phases_D).astype(np.float32)
    return waves_LD
