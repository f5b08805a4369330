"""`BeamSettings`: how a translation is searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from automoe.errors import AtLeastOne, InputError, checked

# Far beyond what is of use; more is a slip of the hand that would fill the memory or never end.
LARGEST_BEAM = 100
MOST_TOKENS = 10_000
# The longest translation that any settings allow, to this power, is still far from float32's largest number.
LARGEST_PENALTY = 5.0


@checked("these beam settings are impossible")
@dataclass(frozen=True, slots=True)
class BeamSettings:
    """How a translation is searched. Lengths are in tokens and count the end-of-sentence token.

    Args:
        beam_size: hypotheses kept a step; 1 is greedy search.
        length_penalty: the exponent of the length a hypothesis's log probability is divided by.
        max_length_ratio, max_length_extra: a translation has at most
            `ratio * source tokens + extra` tokens; the last one allowed is always end-of-sentence.
        min_length: no hypothesis is shorter. 2, the default, rules out the empty translation.
        n_best: hypotheses returned for each sentence, at most `beam_size`.

    Raises:
        InputError: listing every value that makes no sense.
    """

    beam_size: Annotated[int, Field(ge=1, le=LARGEST_BEAM)] = 5
    length_penalty: Annotated[float, Field(ge=0, le=LARGEST_PENALTY)] = 0.6
    max_length_ratio: Annotated[float, Field(ge=0, le=100)] = 1.5
    max_length_extra: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 20
    min_length: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 2
    n_best: AtLeastOne = 1

    def __post_init__(self) -> None:
        if self.n_best > self.beam_size:
            problem = f"n_best: expected at most beam_size ({self.beam_size}), got {self.n_best}"
            raise InputError("these beam settings are impossible", [problem])

    @staticmethod
    def exactly(steps: int, beam_size: int = 5) -> BeamSettings:
        """The papers' latency protocol: exactly `steps` decoding steps whatever the model predicts."""
        return BeamSettings(beam_size, max_length_ratio=0, max_length_extra=steps, min_length=steps)

    def max_length(self, source_tokens: int) -> int:
        """The most tokens a translation of `source_tokens` tokens may have, and so the most steps."""
        longest = int(self.max_length_ratio * source_tokens + self.max_length_extra)
        return max(longest, self.min_length)
