"""`BeamSettings`: how a translation is searched."""

from __future__ import annotations

from dataclasses import dataclass

from automoe.errors import AtLeastOne, AtLeastZero, InputError, NotNegative, checked


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

    beam_size: AtLeastOne = 5
    length_penalty: NotNegative = 0.6
    max_length_ratio: NotNegative = 1.5
    max_length_extra: AtLeastZero = 20
    min_length: AtLeastOne = 2
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
