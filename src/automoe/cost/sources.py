"""What architectures cost under one recipe: its sentence lengths, vocabulary, norm, beam and engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean

from automoe.cost.counting import Counts, RoutingShares, count
from automoe.cost.device.profile import load_profile, this_machine
from automoe.cost.measure import Latency, measure_latency, random_engine
from automoe.cost.noise import why_noisy
from automoe.cost.predictor import load_predictor
from automoe.design.architecture import Architecture
from automoe.inference.backends import make_engine
from automoe.inference.engine import Engine
from automoe.model.transformer import Transformer
from automoe.run.recipe import Recipe
from automoe.search.winner import Measured

RUNS_A_ROUND = 30
COUNTED = ("flops", "parameters", "active_parameters", "memory_bytes")

LatencyMs = Callable[[Architecture], float]
"""The latency of an architecture by one source; InputError when that source cannot tell."""


def count_costs(recipe: Recipe, architecture: Architecture, shares: RoutingShares | None = None) -> Counts:
    """Everything that is counted, not measured (`automoe.cost.counting`).

    Args:
        shares: measured routing; without them every expert of a layer is equally likely.
    """
    protocol = recipe.latency
    return count(
        architecture,
        source_length=protocol.source_length,
        target_length=protocol.target_length,
        vocabulary_size=recipe.data.vocabulary.size,
        beam_size=protocol.beam_size,
        norm=recipe.model.norm,
        routing_shares=shares,
    )


def candidate_costs(recipe: Recipe, latency_ms: LatencyMs | None) -> dict[str, LatencyMs]:
    """Cost name to the function that prices a candidate of the search; no `latency_ms` without a source."""

    # A candidate's costs are asked for one after another.
    @lru_cache(maxsize=1)
    def counts(architecture: Architecture) -> Counts:
        return count_costs(recipe, architecture)

    def counted(name: str) -> LatencyMs:
        return lambda architecture: float(getattr(counts(architecture), name))

    costs = {name: counted(name) for name in COUNTED}
    return costs if latency_ms is None else {**costs, "latency_ms": latency_ms}


def latency_source(recipe: Recipe, file: Path | None, say: Callable[[str], None]) -> LatencyMs:
    """What the recipe's search prices latencies by.

    Args:
        file: the profile or predictor; None for measuring on this machine, `search_runs` times each.
        say: hears what makes the figures doubtful.

    Raises:
        InputError: the file cannot be used, or is of conditions that make its figures meaningless here.
    """
    if file is None:
        return lambda architecture: _measured_ms(recipe, architecture)
    if recipe.latency.source == "predictor":
        return load_predictor(file).predict
    profile = load_profile(file)
    for warning in profile.problems_with(recipe.protocol()):
        say(f"  {file}: {warning}")
    return lambda architecture: profile.predict(architecture).latency_ms


def share_of(bound: float | str) -> float | None:
    """0.75 for the bound `75%`; None for one in the cost's own unit."""
    return float(bound.rstrip("%")) / 100 if isinstance(bound, str) else None


def is_of_another_machine(recipe: Recipe, file: Path | None) -> bool:
    """Whether `file` is a device profile of another processor than this machine's.

    A predictor does not say which device it is of; it is taken to be this one.

    Raises:
        InputError: the profile cannot be read.
    """
    if file is None or recipe.latency.source == "predictor":
        return False
    return load_profile(file).machine.cpu != this_machine(recipe.latency.backend).cpu


def measure_against_budget(
    recipe: Recipe, architecture: Architecture, largest_dense: Architecture, *, judged: bool = True
) -> Measured:
    """One architecture measured with `latency.runs`, and what the recipe's bound on the latency allows it.

    A bound that is a share is the share of `largest_dense` measured in the same rounds: both models get
    random weights, and the machine's drift.

    Args:
        judged: False when the budget is of another machine, so that this one cannot say if it is kept.
    """
    bound = recipe.search.constraints["latency_ms"]
    share = share_of(bound)
    subjects = {"candidate": architecture}
    if judged and share is not None:
        subjects["reference"] = largest_dense
    measured = measure_together(recipe, subjects)
    reference_ms = measured["reference"].latency_ms if "reference" in measured else None
    if not judged:
        maximum_ms = None
    elif share is None or reference_ms is None:
        maximum_ms = float(bound)
    else:
        maximum_ms = share * reference_ms
    return Measured(
        latency_ms=measured["candidate"].latency_ms,
        maximum_ms=maximum_ms,
        reference_ms=reference_ms,
        noise=why_noisy(*measured.values()),
    )


def measure_together(
    recipe: Recipe, subjects: Mapping[str, Transformer] | Mapping[str, Architecture]
) -> dict[str, Latency]:
    """The latency of several models (or architectures, with random weights) in rounds, each once a round.

    A machine's speed drifts over minutes; models measured one after another would differ by the drift. The
    `runs` of the recipe are spread over rounds; figures are means over the rounds, and a model's figure is
    noisy when most of its rounds were.
    """
    protocol = recipe.latency
    engines = {
        name: make_engine(subject, protocol.backend, protocol.precision, protocol.threads)
        if isinstance(subject, Transformer)
        else _random_engine(recipe, subject)
        for name, subject in subjects.items()
    }
    rounds = max(1, protocol.runs // RUNS_A_ROUND)
    measured: dict[str, list[Latency]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            latency = measure_latency(
                engine,
                source_length=protocol.source_length,
                target_length=protocol.target_length,
                beam_size=protocol.beam_size,
                threads=protocol.threads,
                runs=protocol.runs // rounds,
            )
            measured[name].append(latency)
    return {name: _mean(latencies) for name, latencies in measured.items()}


def _measured_ms(recipe: Recipe, architecture: Architecture) -> float:
    protocol = recipe.protocol()
    return measure_latency(
        _random_engine(recipe, architecture),
        source_length=protocol.source_length,
        target_length=protocol.target_length,
        beam_size=protocol.beam_size,
        threads=protocol.threads,
        runs=recipe.latency.search_runs,
    ).latency_ms


def _random_engine(recipe: Recipe, architecture: Architecture) -> Engine:
    p = recipe.protocol()
    return random_engine(
        architecture,
        p.vocabulary_size,
        backend=p.backend,
        precision=p.precision,
        threads=p.threads,
        norm=p.norm,
    )


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
