"""What the stages of one seed left, as a report is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automoe.design.architecture import Architecture
from automoe.evaluation.significance import Significance


@dataclass(frozen=True)
class SeedReport:
    """What the stages of one seed left, by system.

    Attributes:
        results: the evaluation's `result.json`. `latencies`: the fields of a `Latency`, and `noise`, why it
            should not be believed.
        throughputs: the same of a server's batches, with `batch`, how many sentences, and `sentences_s`, how
            many a second; none where they were not measured.
        searches: the searches' `chosen.json`. `logs`: their `candidates.jsonl`. `races`: the finals'
            `race.json`.
        histories: by name, the folders with a training history.
        compared: by (one system, another), whether the other's translations are better.
        supernet_seconds: of its training, if there is one.
        sentences: some of the test set: `source`, `reference`, and in `outputs`, by system, its `translation`
            and `grids` (`automoe.web.expert_grid`), or None and in `note` why there are none.
        twins: by the name of a student, the system that is the same without distillation.
        distilling_seconds: that the teacher took to translate, if there is one.
    """

    results: Mapping[str, Mapping[str, Any]]
    latencies: Mapping[str, Mapping[str, Any]]
    searches: Mapping[str, Mapping[str, Any]]
    logs: Mapping[str, Path]
    races: Mapping[str, Mapping[str, Any]]
    histories: Mapping[str, Path]
    compared: Mapping[tuple[str, str], Significance]
    supernet_seconds: float | None = None
    sentences: Sequence[Mapping[str, Any]] = ()
    twins: Mapping[str, str] = field(default_factory=dict)
    distilling_seconds: float | None = None
    throughputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def architecture(self, system: str) -> Architecture:
        """That was trained as this system."""
        return architecture_of(self.results[system])

    def found(self, system: str) -> Mapping[str, Any]:
        """What the search said of the architecture that won; nothing where none was searched."""
        finalists = self.searches.get(system, {}).get("finalists", ())
        own = self.architecture(system)
        return next((f for f in finalists if architecture_of(f) == own), {})


def architecture_of(plain: Mapping[str, Any]) -> Architecture:
    """The architecture in a stage's record."""
    return Architecture.from_dict(plain["architecture"])
