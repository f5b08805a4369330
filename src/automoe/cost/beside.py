"""Measuring a model beside another, in turns, so that a slow minute of the machine touches both.

A virtual machine's speed drifts within minutes (its neighbours use the memory, too), by more than the parts
of an architecture that are to be told apart. The ratio of two models that take turns stays.

Shapes: B sentences, S source tokens.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from automoe.cost.machine import ProcessorTimes, stolen_share_between, torch_threads
from automoe.cost.measure import (
    MOST_RELATIVE_SPREAD,
    MOST_STOLEN_SHARE,
    WARM_UP_RUNS,
    random_engine,
    random_source,
    timed_run,
)
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine

SHORTEST_TURN_MS = 30.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """The time of a model relative to a reference that was measured in turn with it.

    Attributes:
        encoder, decoder: model's time by reference's time; medians over the turns.
        reference_encoder_ms, reference_decoder_ms: the reference's own times; medians over the turns.
        spread: interquartile range over the turns of the ratio of the whole latencies, relative to it.
        stolen_share: as in `Latency`, of the whole measurement.
    """

    encoder: float
    decoder: float
    reference_encoder_ms: float
    reference_decoder_ms: float
    spread: float
    stolen_share: float | None

    @property
    def noisy(self) -> bool:
        """Whether it should not be believed, by the measure of `Latency.noisy`."""
        return self.spread > MOST_RELATIVE_SPREAD or (self.stolen_share or 0.0) > MOST_STOLEN_SHARE


class Reference:
    """A model that stays loaded, for others to be measured beside it.

    Args:
        architecture: gets random weights, like everything that is measured.
        protocol: how to measure.

    Raises:
        InputError: there is no such backend or precision.
    """

    def __init__(self, architecture: Architecture, protocol: MeasuringProtocol) -> None:
        self._protocol = protocol
        self._engine = random_engine(architecture, protocol)

    def measure(
        self,
        architecture: Architecture,
        turns: int,
        *,
        vocabulary_size: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Ratio:
        """Measure an architecture beside the reference.

        Each turn has its own random sentence. A turn lasts one run, or if that is short, as many as make
        `SHORTEST_TURN_MS`, and then the first is not counted: it fetched the weights back into the
        caches, where they would have stayed had the other model not run.

        Args:
            turns: of each model. `vocabulary_size`: None, the protocol's. `clock`: seconds.
        """
        p = self._protocol
        engine = random_engine(architecture, replace(p, vocabulary_size=vocabulary_size or p.vocabulary_size))
        return measure_beside(self._engine, engine, p, turns, clock=clock)


def measure_beside(
    reference: Engine,
    engine: Engine,
    protocol: MeasuringProtocol,
    turns: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Measure an engine beside another, as `Reference.measure` does; their weights are their own.

    Args:
        protocol: lengths, beam, batch, and torch's threads; engine, vocabulary and norm are the engines' own.
        turns: of each engine, at least 2. `clock`: seconds.
    """
    p = protocol
    settings = BeamSettings.exactly(p.target_length, p.beam_size)
    rng = np.random.default_rng(0)

    def turn(engine: Engine, runs: int) -> tuple[float, float]:
        source_BS = random_source(p.batch, p.source_length, engine.vocabulary_size, rng)
        times = [timed_run(engine, source_BS, settings, clock) for _ in range(runs)]
        encoder_ms, decoder_ms = zip(*times[1 if runs > 1 else 0 :], strict=True)
        return statistics.median(encoder_ms), statistics.median(decoder_ms)

    def runs_of(engine: Engine) -> int:
        run_ms = sum([turn(engine, 1) for _ in range(WARM_UP_RUNS)][-1])
        return 1 if run_ms >= SHORTEST_TURN_MS else 1 + math.ceil(SHORTEST_TURN_MS / run_ms)

    with torch_threads(p.threads):
        runs, reference_runs = runs_of(engine), runs_of(reference)
        before = ProcessorTimes.read()
        pairs = [(turn(reference, reference_runs), turn(engine, runs)) for _ in range(turns)]
        after = ProcessorTimes.read()
    whole = [sum(ours) / sum(others) for others, ours in pairs]
    lower, middle, upper = statistics.quantiles(whole, n=4, method="inclusive")
    return Ratio(
        encoder=statistics.median(ours[0] / others[0] for others, ours in pairs),
        decoder=statistics.median(ours[1] / others[1] for others, ours in pairs),
        reference_encoder_ms=statistics.median(others[0] for others, _ in pairs),
        reference_decoder_ms=statistics.median(others[1] for others, _ in pairs),
        spread=(upper - lower) / middle,
        stolen_share=stolen_share_between(before, after),
    )
