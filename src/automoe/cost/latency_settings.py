"""`LatencySettings`: what a recipe says about latency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from automoe.data.vocabulary import ShortlistSize
from automoe.errors import AtLeastOne, InputError, checked
from automoe.inference.backends import Backend, Precision, check_engine


@checked("these throughput settings are impossible")
@dataclass(frozen=True, slots=True)
class ThroughputSettings:
    """How a server's throughput is measured, beside the latency of single sentences.

    `batch`: sentences translated together. `runs`: batches timed for a figure in the table, and for a
    candidate before it may win. `profile`: a device profile of such batches, where a profile prices
    candidates; without one, the run makes one on this machine.
    """

    batch: AtLeastOne = 64
    runs: Annotated[int, Field(ge=10)] = 60
    profile: str | None = None


@checked("these latency settings are impossible")
@dataclass(frozen=True, slots=True)
class LatencySettings:
    """How latency is measured (the papers' protocol, `automoe.cost.measure`) and what the search goes by.

    `backend`, `precision`: of the engine that will serve; that one is measured. `source`: what prices a
    candidate when there is a bound on the latency:

    - `profile`: a device profile. `profile` is the file `automoe profile` wrote, maybe on another machine;
      without one, the run makes one of the recipe's space on this machine.
    - `predictor`: the file `predictor` that `automoe predictor fit` wrote.
    - `measurement`: this machine, `search_runs` times a candidate: 300 is the papers' "gold" latency, fewer
      their "partially gold".

    Fields that `MeasuringProtocol` has too (lengths, beam, threads, ...) are what it is made of.
    `batch`: sentences translated together; the papers' is one. `throughput`: batches of their own for the
    cost `throughput_sentences_s`, which without it goes by the latency.
    `shortlist`: tokens that the output layer works on; 0 is the whole vocabulary. With one, the test set is
    translated so as well; a sentence has as many, in measurements a batch.

    Whatever the source, the winner is measured with `runs` before it wins, as is every system in the table.

    Raises:
        InputError: listing every value that is wrong or does not go with the others.
    """

    backend: Backend = "torch"
    precision: Precision = "float32"
    source: Literal["profile", "predictor", "measurement"] = "profile"
    profile: str | None = None
    predictor: str | None = None
    source_length: AtLeastOne = 30
    target_length: AtLeastOne = 30
    beam_size: AtLeastOne = 5
    threads: AtLeastOne = 2
    search_runs: Annotated[int, Field(ge=10)] = 10
    runs: Annotated[int, Field(ge=10)] = 300
    batch: AtLeastOne = 1
    shortlist: ShortlistSize = 0
    throughput: ThroughputSettings | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{kind}: is only used with source: {kind}, but source is {self.source}"
            for kind in ("profile", "predictor")
            if getattr(self, kind) is not None and self.source != kind
        ]
        if self.source == "predictor" and self.predictor is None:
            problems.append("predictor: missing; name the file that `automoe predictor fit` wrote")
        if self.source == "predictor" and self.batch > 1:
            problems.append("batch: a predictor tells the latency of one sentence; use another source")
        if self.source == "predictor" and self.throughput is not None:
            problems.append("throughput: a predictor tells the latency of one sentence; use another source")
        if self.throughput is not None and self.throughput.profile and self.source == "measurement":
            problems.append(
                "throughput.profile: is only used with source: profile, but source is measurement"
            )
        if self.source == "predictor" and self.shortlist:
            problems.append("shortlist: a predictor does not know of one; use another source")
        try:
            check_engine(self.backend, self.precision)
        except InputError as error:
            problems += error.problems
        if problems:
            raise InputError("these latency settings are impossible", problems)
