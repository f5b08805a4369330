"""The stage `profile`, and what else decides the latencies that candidates are priced by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automoe.cost.costs import measured_names
from automoe.cost.device.probing import make_profile
from automoe.run.context import Run
from automoe.run.inputs import COUNTED, MEASURED, content_digest
from automoe.run.recipe import Recipe
from automoe.search.pareto import LOSS


def priced_measured_costs(recipe: Recipe) -> tuple[str, ...]:
    """The measured costs that any search has a bound on, or among its objectives; so latencies are priced."""
    names = {name for system in recipe.searched for name in recipe.constraints_of(system)}
    names |= {objective.name for system in recipe.searched for objective in system.sought} - {LOSS}
    return measured_names(sorted(names))


def find_latency_file(run: Run) -> Path | None:
    """The profile or predictor that prices candidates; a profile that the recipe lacks is made.

    None when nothing is priced by a file.
    """
    latency = run.recipe.latency
    if not priced_measured_costs(run.recipe) or latency.source == "measurement":
        return None
    given = latency.predictor if latency.source == "predictor" else latency.profile
    if given is not None:
        return Path(given)
    say, bar = run.reporter.say, run.reporter.bar("profile")

    def work(folder: Path) -> None:
        make_profile(run.space, run.protocol, folder / "device.json", say, progress=bar)

    return run.folder.stage("profile", run.chosen("space", *MEASURED), work).folder / "device.json"


def price_inputs(run: Run, file: Path | None) -> dict[str, Any]:
    """What decides the prices of candidates, as inputs of a stage.

    Args:
        file: as `find_latency_file` gives it.
    """
    latency = run.recipe.latency
    if not priced_measured_costs(run.recipe):
        return run.chosen(*COUNTED)
    inputs = run.chosen(*MEASURED, "latency.source")
    if file is None:
        return inputs | run.chosen("latency.search_runs")
    if given := next((kind for kind in ("profile", "predictor") if getattr(latency, kind)), None):
        return inputs | run.chosen(f"latency.{given}")
    return inputs | {"the profile of this device": content_digest(file)}
