"""What a beam search needs of a model, whatever computes it.

Shapes: B sentences, S source tokens, K beams, C candidates.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from automoe.design.architecture import Architecture


class Extensions(NamedTuple):
    """The tokens that may follow each hypothesis.

    Attributes:
        log_probability_BKC: of the most probable tokens, best first.
        tokens_BKC: int64, those tokens.
        end_BK: the log probability of end-of-sentence, whether or not it is among them.
    """

    log_probability_BKC: Tensor
    tokens_BKC: Tensor
    end_BK: Tensor


class EngineState(Protocol):
    """What an engine remembers of a batch between two steps."""

    def reorder(self, beams_BK: Tensor) -> None:
        """Row k of sentence b continues what row `beams_BK[b, k]` of it had been."""

    def keep(self, sentences_B: Tensor) -> None:
        """Only these sentences (indices) stay, in this order."""


class Engine(Protocol):
    """A model that can be searched. Called in `torch.inference_mode`, by one thread at a time.

    `automoe.inference.beam.search_encoded` is the one place that starts and steps it.
    """

    @property
    def architecture(self) -> Architecture:
        """Of the model it computes."""

    @property
    def vocabulary_size(self) -> int:
        """Of the output layer: token ids are below it."""

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def encode(self, source_BS: Tensor) -> Any:
        """Encode token ids, int64, padded on the right; what comes back is for `start`."""

    def start(self, encoded: Any, beam_size: int, max_length: int) -> EngineState:
        """Before the first of at most `max_length` positions."""

    def step(self, tokens_BK: Tensor, state: Any, candidates: int) -> Extensions:
        """Decode one position: the best `candidates` tokens after `tokens_BK`; advances the state."""
