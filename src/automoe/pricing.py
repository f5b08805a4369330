"""What architectures cost under one recipe: its sentence lengths, vocabulary, norm, beam and threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from automoe.architecture import Architecture
from automoe.cost.counting import Counts, count
from automoe.cost.measure import Latency, measure_latency
from automoe.model.transformer import Transformer
from automoe.recipe import Recipe

RUNS_A_ROUND = 30


def count_costs(recipe: Recipe, architecture: Architecture) -> Counts:
    """Everything that is counted, not measured (`automoe.cost.counting`)."""
    protocol = recipe.latency
    return count(
        architecture,
        source_length=protocol.source_length,
        target_length=protocol.target_length,
        vocabulary_size=recipe.data.vocabulary.size,
        beam_size=protocol.beam_size,
        norm=recipe.model.norm,
    )


def measure(recipe: Recipe, subject: Architecture | Transformer, runs: int) -> Latency:
    """The latency on this machine, by the papers' protocol (`automoe.cost.measure`)."""
    protocol = recipe.latency
    return measure_latency(
        subject,
        source_length=protocol.source_length,
        target_length=protocol.target_length,
        beam_size=protocol.beam_size,
        threads=protocol.threads,
        runs=runs,
        vocabulary_size=recipe.data.vocabulary.size,
    )


def measure_together(recipe: Recipe, models: Mapping[str, Transformer]) -> dict[str, Latency]:
    """The latency of several models in rounds, every model once a round.

    A machine's speed drifts over minutes; models measured one after another would differ by the drift. The
    `runs` of the recipe are spread over rounds; figures are means over the rounds, and a model's figure is
    noisy when most of its rounds were.
    """
    rounds = max(1, recipe.latency.runs // RUNS_A_ROUND)
    runs = recipe.latency.runs // rounds
    measured: dict[str, list[Latency]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            measured[name].append(measure(recipe, model, runs))
    return {name: _mean(latencies) for name, latencies in measured.items()}


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


def candidate_costs(recipe: Recipe) -> dict[str, Callable[[Architecture], float]]:
    """Cost name to the function that prices a candidate of the search; a latency takes `search_runs` runs."""

    def counted(name: str) -> Callable[[Architecture], float]:
        return lambda architecture: float(getattr(count_costs(recipe, architecture), name))

    costs = {name: counted(name) for name in ("flops", "parameters", "active_parameters", "memory_bytes")}
    runs = recipe.latency.search_runs
    costs["latency_ms"] = lambda architecture: measure(recipe, architecture, runs).latency_ms
    return costs
