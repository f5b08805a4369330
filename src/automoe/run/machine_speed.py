"""Measuring what this machine does with the members of a scale: real training steps, scoring, latencies."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import tempfile
import time
from functools import cache
from pathlib import Path

import torch

from automoe.cost.costs import COSTS, Conditions, constraints_of, share_of
from automoe.cost.counting import count
from automoe.cost.measure import FEWEST_RUNS, measure_latency, random_engine
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.batching import Batch, BatchStream, TokenisedCorpus, fixed_batches
from automoe.design.architecture import Architecture
from automoe.model.sharing import Supernet
from automoe.run.plan import MOST_SCORED_SENTENCES, DoesNotFit, MachineSpeed, Wish
from automoe.run.scales import Scale
from automoe.search.constraint import violations
from automoe.training.loop import train
from automoe.training.objective import validation_loss
from automoe.training.results import TrainingProgress
from automoe.training.rules import SupernetRule, only, random_members
from automoe.training.settings import Precision, TrainingSettings

UNTIMED_STEPS, FEWEST_TIMED_STEPS = 3, 5  # the first ones warm caches up
TIMED_S = 5.0
SCORED_MEMBERS = 3
TRANSLATED_TOGETHER = 8
BYTES_A_PARAMETER = 16  # weight, gradient and two moments
MOST_MEMORY_SHARE = 0.5


def measure_speed(
    scale: Scale,
    train_corpus: TokenisedCorpus,
    valid_corpus: TokenisedCorpus,
    protocol: MeasuringProtocol,
    batch_tokens: int,
    wish: Wish,
) -> MachineSpeed:
    """Measure one scale, in some 15 seconds on two cores for models that suit them.

    Args:
        train_corpus, valid_corpus: samples are enough.
        protocol: of the recipe, with the vocabulary that the corpora are tokens of.

    Raises:
        DoesNotFit: the supernet is too large for the memory; or even the smallest member breaks the budget.
    """
    _check_memory(scale, protocol.vocabulary_size, wish.gpu)

    @cache
    def latency_ms(architecture: Architecture) -> float:
        engine = random_engine(architecture, protocol)
        return measure_latency(engine, protocol, runs=FEWEST_RUNS).latency_ms

    conditions = Conditions(protocol, latency_ms)
    member = largest_within_budget(scale, conditions, wish)
    settings = training_settings(scale, batch_tokens, wish.precision)
    single = Supernet(member, protocol.vocabulary_size, norm=protocol.norm)
    member_tokens_s = _tokens_a_second(single, only(member), train_corpus, settings)
    space, size = scale.space, protocol.vocabulary_size
    supernet = Supernet(space.largest(), size, norm=protocol.norm, mixers=space.decoder.mixers)
    supernet_tokens_s = _tokens_a_second(supernet, random_members(scale.space), train_corpus, settings)
    together = dataclasses.replace(
        protocol, backend="torch", precision="float32", batch=TRANSLATED_TOGETHER, beam_size=5
    )
    translating = measure_latency(random_engine(member, together), together, runs=FEWEST_RUNS)
    return MachineSpeed(
        member=member,
        supernet_tokens_s=supernet_tokens_s,
        member_tokens_s=member_tokens_s,
        scored_sentences_s=_scored_a_second(supernet, scale, valid_corpus, batch_tokens),
        translated_sentences_s=1000 * TRANSLATED_TOGETHER / translating.latency_ms,
        member_s=latency_ms(member) / 1000,
        reference_s=latency_ms(scale.space.largest_dense()) / 1000,
        baseline_s=latency_ms(scale.baseline) / 1000 if wish.with_baseline else 0.0,
    )


def training_settings(scale: Scale, batch_tokens: int, precision: Precision) -> TrainingSettings:
    """What the recipe says of a training, but without an end."""
    return TrainingSettings(
        steps=10**9,
        optimizer=scale.optimizer,
        peak_rate=scale.peak_rate,
        warmup_steps=200,
        batch_tokens=batch_tokens,
        checkpoint_every=10**9,
        validate_every=10**9,
        average_checkpoints=1,
        schedule="constant",
        precision=precision,
    )


def largest_within_budget(scale: Scale, conditions: Conditions, wish: Wish) -> Architecture:
    """The largest member of the scale's ladder that keeps the budget.

    Raises:
        DoesNotFit: none does; it says what the smallest costs.
    """
    limits = {
        name: float(bound)
        if (share := share_of(bound)) is None
        else share * COSTS[name].price(scale.baseline, conditions)
        for name, bound in wish.bounds.items()
    }
    constraints = constraints_of(limits)
    costs: dict[str, float] = {}
    for member in scale.ladder():
        costs = {name: COSTS[name].price(member, conditions) for name in limits}
        if not violations(constraints, costs):
            return member
    raise DoesNotFit(
        "no model of this program keeps the budget here",
        [
            f"{name}: {costs[name]:.4g} {COSTS[name].unit} for the smallest, {limits[name]:.4g} allowed"
            for name in limits
        ],
    )


class _Enough(Exception):  # noqa: N818  # no error: it ends a training that is only timed
    pass


def _tokens_a_second(
    supernet: Supernet, rule: SupernetRule, corpus: TokenisedCorpus, settings: TrainingSettings
) -> float:
    """Target tokens a second of real steps, the first ones left out."""
    ended: list[float] = []

    def heard(progress: TrainingProgress) -> None:
        ended.append(time.perf_counter())
        if len(ended) > UNTIMED_STEPS + FEWEST_TIMED_STEPS and ended[-1] - ended[UNTIMED_STEPS] > TIMED_S:
            raise _Enough

    stream = _Counted(BatchStream(corpus, settings.batch_tokens, seed=1))
    with (
        tempfile.TemporaryDirectory(prefix="automoe-") as folder,
        contextlib.suppress(_Enough),
    ):
        train(supernet, rule, stream, settings, Path(folder), report=heard)
    tokens = sum(stream.target_tokens[UNTIMED_STEPS + 1 :])
    return tokens / (ended[-1] - ended[UNTIMED_STEPS])


class _Counted:
    """A stream that remembers how many target tokens each batch had."""

    def __init__(self, stream: BatchStream) -> None:
        self._stream = stream
        self.state_dict = stream.state_dict
        self.load_state_dict = stream.load_state_dict
        self.target_tokens: list[int] = []

    def __next__(self) -> Batch:
        batch = next(self._stream)
        self.target_tokens.append(batch.target_tokens)
        return batch


def _scored_a_second(supernet: Supernet, scale: Scale, valid: TokenisedCorpus, batch_tokens: int) -> float:
    """Sentences a second of validation losses, as a search asks for them."""
    indices = range(min(MOST_SCORED_SENTENCES, len(valid)))
    batches = fixed_batches(valid, batch_tokens, indices)
    rng = random.Random(1)
    start = time.perf_counter()
    for _ in range(SCORED_MEMBERS):
        validation_loss(supernet.subnetwork(scale.space.sample(rng)), batches)
    return SCORED_MEMBERS * len(indices) / (time.perf_counter() - start)


def _check_memory(scale: Scale, vocabulary_size: int, gpu: bool) -> None:
    largest = scale.space.largest()
    parameters = count(largest).parameters + vocabulary_size * largest.encoder_width
    if gpu:
        memory = torch.cuda.get_device_properties(0).total_memory
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return  # the system does not tell
    if BYTES_A_PARAMETER * parameters > MOST_MEMORY_SHARE * memory:
        needed = BYTES_A_PARAMETER * parameters / MOST_MEMORY_SHARE / 2**30
        raise DoesNotFit(f"the {scale.name} space needs {needed:.1f} GiB of memory", ["use a larger machine"])
