"""The stage `profile`, and what else decides the latencies that candidates are priced by."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from automoe.cost.device.probing import make_profile
from automoe.progress import Reporter
from automoe.run.folder import RunFolder
from automoe.run.recipe import LoadedRecipe, Recipe
from automoe.storage import file_digest


def bounds_latency(recipe: Recipe) -> bool:
    """Whether the search keeps a bound on the latency, and so prices it."""
    return "latency_ms" in recipe.search.constraints


def latency_file(loaded: LoadedRecipe, run: RunFolder, reporter: Reporter) -> Path | None:
    """The profile or predictor that prices candidates; a profile that the recipe lacks is made.

    None when nothing is priced by a file.
    """
    recipe, latency = loaded.recipe, loaded.recipe.latency
    if not bounds_latency(recipe) or latency.source == "measurement":
        return None
    given = latency.predictor if latency.source == "predictor" else latency.profile
    if given is not None:
        return Path(given)
    protocol = recipe.protocol()

    def work(folder: Path) -> None:
        make_profile(
            loaded.space, protocol, folder / "device.json", reporter.say, progress=reporter.bar("profile")
        )

    inputs = [repr(loaded.space), dataclasses.asdict(protocol)]
    return run.stage("profile", inputs, work).folder / "device.json"


def latency_inputs(recipe: Recipe, file: Path | None) -> Any:
    """What decides the latencies that candidates are priced by, as inputs of a stage.

    Args:
        file: as `latency_file` gives it.
    """
    latency = recipe.latency
    return [
        dataclasses.asdict(recipe.protocol()),
        latency.source if bounds_latency(recipe) else None,
        latency.search_runs if latency.source == "measurement" else None,
        None if file is None else file_digest(file),
    ]
