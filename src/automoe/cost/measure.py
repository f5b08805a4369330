"""The papers' latency protocol: how long one batch, by default one sentence, takes on this machine.

Shapes: B sentences, S source tokens.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from automoe.cost.machine import ProcessorTimes, stolen_share_between, torch_threads
from automoe.cost.protocol import MeasuringProtocol
from automoe.cost.random_weights import random_weights
from automoe.data.vocabulary import EOS_ID, SPECIAL_TOKENS
from automoe.design.architecture import Architecture
from automoe.design.model_options import ModelOptions
from automoe.errors import InputError
from automoe.inference.backends import engine_of, make_engine, needs_torch
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine, Hypothesis, Ids
from automoe.inference.model_folder import BareModel
from automoe.inference.weight_shapes import weight_shapes

if TYPE_CHECKING:
    from automoe.model.transformer import Transformer

FEWEST_RUNS = 10
RUNS_A_ROUND = 30  # of each model, of those that are measured together
DROPPED_SHARE = 0.1  # of the runs, at each end
WARM_UP_RUNS = 2  # not counted: first runs allocate memory and pick kernels
# Above either, a figure says more about the machine's other work than about the model.
MOST_STOLEN_SHARE = 0.05
MOST_RELATIVE_SPREAD = 0.2
MEND = (
    "stop other programs, or measure with fewer threads than the machine has cores, then measure again; "
    "more runs do not help while the machine is busy"
)


@dataclass(frozen=True, slots=True)
class Latency:
    """The time of one batch by the protocol of `measure_latency`.

    Attributes:
        latency_ms: truncated mean, `encoder_ms + decoder_ms`.
        encoder_ms: of the encoder by itself. `decoder_ms`: of the rest. Means over the same runs.
        spread_ms: interquartile range of the runs that were not dropped.
        stolen_share: of the time this process wanted to compute, the share in which other processes
            (or other virtual machines) had the processor; None where the system does not tell.
        runs: measured, the dropped ones included. `threads`: the protocol's.
        noisy: the figure should not be believed: much time was stolen, or the runs differ much.
    """

    latency_ms: float
    encoder_ms: float
    decoder_ms: float
    spread_ms: float
    stolen_share: float | None
    runs: int
    threads: int
    noisy: bool


def measure_latency(
    engine: Engine,
    protocol: MeasuringProtocol,
    *,
    runs: int = 300,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Measure by the protocol of HAT and AutoMoE.

    Sentences of random token ids, others each run, so that routing is as varied as in real text (for random
    weights, see `random_engine`); encoded, then exactly `target_length` steps of beam search.
    The lowest and the highest 10 % of the runs are dropped and the rest averaged. The papers use 300 runs
    for a figure to report and 100 during a search.

    Args:
        engine: measured where it is; backend, precision, vocabulary and norm are its own.
        protocol: lengths, beam, batch, and torch's threads while measuring, put back after.
        seed: of the sentences. `clock`: seconds.

    Raises:
        InputError: fewer than 10 runs.
    """
    if runs < FEWEST_RUNS:
        raise InputError("this latency cannot be measured", [f"runs: at least {FEWEST_RUNS}, not {runs}"])
    settings = BeamSettings.exactly(protocol.target_length, protocol.beam_size)
    shape = protocol.batch, protocol.source_length
    rng = np.random.default_rng(seed)
    encoder_ms: list[float] = []
    decoder_ms: list[float] = []
    with torch_threads(protocol.threads):
        before = ProcessorTimes.read()
        for run in range(WARM_UP_RUNS + runs):
            source_BS = random_source(*shape, engine.vocabulary_size, rng)
            times_ms = timed_run(engine, source_BS, settings, clock)
            if run >= WARM_UP_RUNS:
                encoder_ms.append(times_ms[0])
                decoder_ms.append(times_ms[1])
        after = ProcessorTimes.read()
    return summarise(encoder_ms, decoder_ms, stolen_share_between(before, after), protocol.threads)


def measure_together(
    protocol: MeasuringProtocol,
    subjects: Mapping[str, Transformer] | Mapping[str, Architecture],
    runs: int,
    runs_a_round: int = RUNS_A_ROUND,
) -> dict[str, Latency]:
    """The latency of several models (or architectures, with random weights) in rounds, each once a round.

    A machine's speed drifts over minutes; models measured one after another would differ by the drift. The
    `runs` are spread over rounds; figures are means over the rounds, and a model's figure is noisy when
    most of its rounds were.
    """
    engines = {name: _engine(subject, protocol) for name, subject in subjects.items()}
    rounds = max(1, runs // runs_a_round)
    measured: dict[str, list[Latency]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            measured[name].append(measure_latency(engine, protocol, runs=runs // rounds))
    return {name: _mean(latencies) for name, latencies in measured.items()}


def _engine(subject: Transformer | Architecture, protocol: MeasuringProtocol) -> Engine:
    if isinstance(subject, Architecture):
        return random_engine(subject, protocol)
    shortlister = replace(protocol, vocabulary_size=subject.vocabulary_size).shortlister()
    backend, precision, threads = protocol.backend, protocol.precision, protocol.threads
    return make_engine(subject, backend, precision, threads, shortlister=shortlister)


def _mean(latencies: Sequence[Latency]) -> Latency:
    known = [x.stolen_share for x in latencies if x.stolen_share is not None]
    return Latency(
        latency_ms=fmean(x.latency_ms for x in latencies),
        encoder_ms=fmean(x.encoder_ms for x in latencies),
        decoder_ms=fmean(x.decoder_ms for x in latencies),
        spread_ms=fmean(x.spread_ms for x in latencies),
        stolen_share=fmean(known) if known else None,
        runs=sum(x.runs for x in latencies),
        threads=latencies[0].threads,
        noisy=2 * sum(x.noisy for x in latencies) > len(latencies),
    )


def timed_run(
    engine: Engine, source_BS: Ids, settings: BeamSettings, clock: Callable[[], float]
) -> tuple[float, float]:
    """Encode, then translate: the time in ms of the encoder, and of what a translation takes beyond it."""
    started = clock()
    engine.encode(source_BS)
    encoded_at = clock()
    engine.search(source_BS, settings)
    ended = clock()
    encoder_ms, whole_ms = 1000 * (encoded_at - started), 1000 * (ended - encoded_at)
    return encoder_ms, whole_ms - encoder_ms


def summarise(
    encoder_ms: Sequence[float], decoder_ms: Sequence[float], stolen_share: float | None, threads: int
) -> Latency:
    """The `Latency` of single runs, given as the encoder's and the decoder's time of each."""
    pairs = sorted(zip(encoder_ms, decoder_ms, strict=True), key=sum)
    dropped = int(len(pairs) * DROPPED_SHARE)
    kept = pairs[dropped : len(pairs) - dropped]
    mean_encoder_ms, mean_decoder_ms = (fmean(part) for part in zip(*kept, strict=True))
    latency_ms = mean_encoder_ms + mean_decoder_ms
    lower, _, upper = statistics.quantiles(map(sum, kept), n=4, method="inclusive")
    spread_ms = upper - lower
    noisy = spread_ms > MOST_RELATIVE_SPREAD * latency_ms or (stolen_share or 0.0) > MOST_STOLEN_SHARE
    return Latency(
        latency_ms=latency_ms,
        encoder_ms=mean_encoder_ms,
        decoder_ms=mean_decoder_ms,
        spread_ms=spread_ms,
        stolen_share=stolen_share,
        runs=len(pairs),
        threads=threads,
        noisy=noisy,
    )


def why_noisy(*latencies: Latency) -> str | None:
    """One sentence with the reasons why these latencies should not be believed, and what to do.

    None when none of them is noisy. With several, the figures are those of the noisiest.
    """
    noisy = [latency for latency in latencies if latency.noisy]
    if not noisy:
        return None
    stolen = max((latency.stolen_share or 0.0) for latency in noisy)
    spread = max(latency.spread_ms / latency.latency_ms for latency in noisy)
    reasons = []
    if stolen > MOST_STOLEN_SHARE:
        reasons.append(
            f"other processes or virtual machines took {stolen:.0%} of the processor time it asked for "
            f"(believable: at most {MOST_STOLEN_SHARE:.0%})"
        )
    if spread > MOST_RELATIVE_SPREAD:
        reasons.append(
            f"the middle half of the runs spreads over {spread:.0%} of the figure "
            f"(believable: at most {MOST_RELATIVE_SPREAD:.0%})"
        )
    why = " and ".join(reasons) or "in most of its rounds, other work disturbed it"
    return f"the machine was too busy to believe this latency: {why}; {MEND}"


def random_engine(architecture: Architecture, protocol: MeasuringProtocol, *, seed: int = 0) -> Engine:
    """The protocol's engine of an architecture with random weights whose tokens spread evenly over experts.

    A mixture's time depends on how many of its experts get a token. Fresh weights send nearly all tokens
    to one: sub-layers add the same vector to every token, tokens of one position have that in common, and
    a decoder that chooses its tokens itself repeats one. So a token's embedding is made large, sub-layers
    small, a router's rows orthogonal and of one length, and the decoder steps on random tokens, another one
    in each beam; which it would have chosen is still searched for. The beams of a trained model are more
    alike than that and wake fewer experts: for a mixture this latency is on the dear side. A shortlist has
    random tokens, too.

    Raises:
        InputError: as in `make_engine`.
    """
    described = architecture, protocol.vocabulary_size, ModelOptions(norm=protocol.norm)
    wanted = protocol.backend, protocol.precision, protocol.threads
    if needs_torch(*wanted[:2]):  # whose threads stay as they are: they are set while measuring
        model = _random_model(*described, seed)
        engine = make_engine(model, *wanted, True, protocol.shortlister(seed))
    else:
        shapes = weight_shapes(architecture, protocol.vocabulary_size, protocol.norm)
        bare = BareModel(*described, random_weights(shapes, seed))
        engine = engine_of(bare, *wanted, protocol.shortlister(seed), forced=True)
    return _RandomTokens(engine, seed)


def _random_model(
    architecture: Architecture, vocabulary_size: int, options: ModelOptions, seed: int
) -> Transformer:
    """The model itself, whose modules may be others than the usual ones."""
    import torch

    from automoe.model.transformer import Transformer

    with torch.device("meta"):
        model = Transformer(architecture, vocabulary_size, options)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = random_weights(shapes, seed)
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()}, assign=True)
    return model


class _RandomTokens:
    """An engine whose decoder reads random tokens, whatever it chooses."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self._engine = engine
        self._rng = np.random.default_rng(seed)
        self.architecture = engine.architecture
        self.vocabulary_size = engine.vocabulary_size
        self.encode = engine.encode

    def search(
        self, source_BS: Ids, settings: BeamSettings, forced_TBK: Ids | None = None
    ) -> list[list[Hypothesis]]:
        batch, length = source_BS.shape
        steps = settings.max_length(length)
        shape = steps, batch, settings.beam_size
        forced_TBK = self._rng.integers(len(SPECIAL_TOKENS), self.vocabulary_size, shape)
        return self._engine.search(source_BS, settings, forced_TBK)


def random_source(batch: int, length: int, vocabulary_size: int, rng: np.random.Generator) -> Ids:
    """Sentences of random token ids that end with end-of-sentence, (B, S)."""
    source_BS = rng.integers(len(SPECIAL_TOKENS), vocabulary_size, (batch, length))
    source_BS[:, -1] = EOS_ID
    return source_BS
