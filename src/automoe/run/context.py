"""`Run`: what every stage of a run is given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from automoe.cost.measure import random_engine
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture
from automoe.design.space import SearchSpace
from automoe.progress import Reporter
from automoe.run.folder import RunFolder
from automoe.run.inputs import chosen, former_values, recipe_values
from automoe.run.recipe import LoadedRecipe, Recipe
from automoe.training.loop import check_device


@dataclass(frozen=True)
class Run:
    """One recipe in one run folder.

    Attributes:
        loaded: what was asked. `folder`: where everything is kept. `reporter`: tells the user.
    """

    loaded: LoadedRecipe
    folder: RunFolder
    reporter: Reporter

    @property
    def recipe(self) -> Recipe:
        """What was asked, but for what its files describe."""
        return self.loaded.recipe

    @property
    def space(self) -> SearchSpace:
        """The supernet's."""
        return self.loaded.space

    @property
    def baseline(self) -> Architecture:
        """What shares of a budget refer to."""
        return self.loaded.baseline

    @property
    def protocol(self) -> MeasuringProtocol:
        """How every latency of this run is measured."""
        return self.recipe.protocol()

    @cached_property
    def values(self) -> dict[str, Any]:
        """What the recipe says, by name (`recipe_values`): of these, stages choose their inputs."""
        return recipe_values(self.loaded)

    @cached_property
    def former_values(self) -> dict[str, Any]:
        """Of the recipe's trainings, what earlier versions took for inputs (`former_values`)."""
        sections = ("supernet", "training", "fine_tuning")
        given = {section: getattr(self.recipe, section) for section in sections}
        values = (former_values(settings, section) for section, settings in given.items() if settings)
        return {name: value for part in values for name, value in part.items()}

    def chosen(self, *names: str) -> dict[str, Any]:
        """The values of these names, and of these sections."""
        return chosen(self.values, *names)

    def formerly(self, section: str) -> dict[str, Any]:
        """The `former_values` of one section."""
        return chosen(self.former_values, section)

    def with_seed(self, seed: int) -> Run:
        """The part of the run that is repeated with this seed, in a folder of its own."""
        loaded = dataclasses.replace(self.loaded, recipe=self.recipe.with_seed(seed))
        return Run(loaded, self.folder.part(f"seed-{seed}"), self.reporter)

    @property
    def seed(self) -> int:
        """Of everything random, in a part of one seed."""
        (seed,) = self.recipe.seeds
        return seed


def check_engines(run: Run) -> None:
    """What would stop a later stage stops the first one: devices to train on, the engine to be measured.

    Raises:
        InputError: there is no such device, or no such engine, on this machine.
    """
    recipe = run.recipe
    for settings in (recipe.supernet if recipe.searched else None, recipe.training, recipe.fine_tuning):
        if settings is not None:
            check_device(settings)
    random_engine(run.space.smallest(), run.protocol)
