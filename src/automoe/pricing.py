"""What architectures cost under one recipe: its sentence lengths, vocabulary, norm, beam and threads."""

from __future__ import annotations

from collections.abc import Callable

from automoe.architecture import Architecture
from automoe.cost.counting import Counts, count
from automoe.cost.measure import Latency, measure_latency
from automoe.model.transformer import Transformer
from automoe.recipe import Recipe


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


def candidate_costs(recipe: Recipe) -> dict[str, Callable[[Architecture], float]]:
    """Cost name to the function that prices a candidate of the search; a latency takes `search_runs` runs."""

    def counted(name: str) -> Callable[[Architecture], float]:
        return lambda architecture: float(getattr(count_costs(recipe, architecture), name))

    costs = {name: counted(name) for name in ("flops", "parameters", "active_parameters", "memory_bytes")}
    runs = recipe.latency.search_runs
    costs["latency_ms"] = lambda architecture: measure(recipe, architecture, runs).latency_ms
    return costs
