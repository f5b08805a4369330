"""How a latency is measured: a figure means something only beside these values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from automoe.inference.backends import Backend, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringProtocol:
    """What decides the latency of an architecture on one machine; the papers' lengths and beam by default.

    Attributes:
        backend, precision: what computes, as in `make_engine`.
        threads: of the backend, within one sentence.
        beam_size, source_length, target_length: one sentence, in tokens; exactly `target_length` steps.
        vocabulary_size: of the output layer.
        norm: position of the layer norms.
    """

    backend: Backend = "torch"
    precision: Precision = "float32"
    threads: int = 2
    beam_size: int = 5
    source_length: int = 30
    target_length: int = 30
    vocabulary_size: int = 32768
    norm: Literal["pre", "post"] = "post"
