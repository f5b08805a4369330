"""`Run`: what every stage of a run is given."""

from __future__ import annotations

from dataclasses import dataclass

from automoe.cost.protocol import MeasuringProtocol
from automoe.design.space import SearchSpace
from automoe.progress import Reporter
from automoe.run.folder import RunFolder
from automoe.run.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """One recipe in one run folder.

    Attributes:
        recipe, space: what was asked. `folder`: where everything is kept. `reporter`: tells the user.
    """

    recipe: Recipe
    space: SearchSpace
    folder: RunFolder
    reporter: Reporter

    @property
    def protocol(self) -> MeasuringProtocol:
        """How every latency of this run is measured."""
        return self.recipe.protocol()
