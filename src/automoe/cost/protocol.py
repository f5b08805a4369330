"""How a latency is measured: a figure means something only beside these values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from automoe.data.vocabulary import SPECIAL_TOKENS, ShortlistSize
from automoe.design.architecture import Norm
from automoe.errors import checked
from automoe.inference.backends import MOST_THREADS, Backend, Precision, check_engine
from automoe.inference.beam_settings import LARGEST_BEAM, MOST_TOKENS

if TYPE_CHECKING:
    from automoe.data.shortlist import Shortlister

_Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]


@checked("this measuring protocol is impossible")
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringProtocol:
    """What decides the latency of an architecture on one machine; the papers' lengths and beam by default.

    Args:
        backend, precision: what computes, as in `make_engine`.
        threads: of the backend, within one batch.
        beam_size: hypotheses kept a step.
        source_length, target_length: of one sentence, in tokens; exactly `target_length` steps. The papers
            use 30 tokens for WMT and 23 for IWSLT.
        vocabulary_size: of the output layer.
        norm: position of the layer norms.
        batch: sentences translated together.
        shortlist: tokens that the output layer works on, those of all sentences of a batch together; 0 is the
            whole vocabulary.
    """

    backend: Backend = "torch"
    precision: Precision = "float32"
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 2
    beam_size: Annotated[int, Field(ge=1, le=LARGEST_BEAM)] = 5
    source_length: _Tokens = 30
    target_length: _Tokens = 30
    vocabulary_size: Annotated[int, Field(gt=len(SPECIAL_TOKENS), le=1_000_000)] = 32768
    norm: Norm = "post"
    batch: Annotated[int, Field(ge=1, le=1_000)] = 1
    shortlist: ShortlistSize = 0

    def __post_init__(self) -> None:
        check_engine(self.backend, self.precision)

    def plain(self) -> dict[str, Any]:
        """The values by name, for fingerprints and files, but for these where they are the papers'.

        That is a batch of one, and no shortlist.
        """
        usual = {"batch": 1, "shortlist": 0}
        return {name: value for name, value in asdict(self).items() if usual.get(name) != value}

    @property
    def output_tokens(self) -> int:
        """Those that the output layer works on."""
        return min(self.shortlist or self.vocabulary_size, self.vocabulary_size)

    def shortlister(self, seed: int = 0) -> Shortlister | None:
        """For an engine to be measured: which tokens these are does not matter for its time."""
        from automoe.data.shortlist import random_shortlister

        return random_shortlister(self.shortlist, self.vocabulary_size, seed) if self.shortlist else None
