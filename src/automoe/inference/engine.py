"""What translates: anything that finds the best hypotheses of a batch of sentences.

Shapes: B sentences, S source tokens, T steps, K beams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from automoe.design.architecture import Architecture
from automoe.inference.beam_settings import BeamSettings

Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished translation.

    Attributes:
        tokens: without begin- and end-of-sentence.
        score: what hypotheses are ranked by, `log_probability / (len(tokens) + 1) ** length_penalty`.
        log_probability: natural logarithm, end-of-sentence included.
    """

    tokens: tuple[int, ...]
    score: float
    log_probability: float


class Engine(Protocol):
    """A model that is ready to translate, used by one thread at a time."""

    @property
    def architecture(self) -> Architecture:
        """Of the model it computes."""

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below it."""

    def search(
        self, source_BS: Ids, settings: BeamSettings, forced_TBK: Ids | None = None
    ) -> list[list[Hypothesis]]:
        """The `n_best` hypotheses of each sentence, best first, as `automoe.inference.beam` finds them.

        Args:
            source_BS: each row ends with EOS and is padded on the right with PAD.
            forced_TBK: what the decoder reads in place of what it chose, for measuring random weights: of
                sentences that take equally many steps, by an engine that was made for it (`make_engine`).
        """

    def encode(self, source_BS: Ids) -> Any:
        """Run the encoder alone, which `search` does first: to time it."""
