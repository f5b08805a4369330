"""The stages `profile` and `profile-throughput`, and what else decides the prices of candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from automoe.cost.costs import COSTS, THROUGHPUT, measured_names
from automoe.cost.device.probing import make_profile
from automoe.cost.protocol import MeasuringProtocol
from automoe.cost.sources import is_of_another_machine
from automoe.errors import InputError
from automoe.run.context import Run
from automoe.run.inputs import COUNTED, MEASURED, TOGETHER, content_digest
from automoe.run.recipe import Recipe
from automoe.search.pareto import LOSS


def priced_costs(recipe: Recipe) -> tuple[str, ...]:
    """The costs that any search has a bound on, or among its objectives."""
    names = {name for system in recipe.searched for name in recipe.constraints_of(system)}
    names |= {objective.name for system in recipe.searched for objective in system.sought} - {LOSS}
    return tuple(sorted(names))


def priced_measured_costs(recipe: Recipe) -> tuple[str, ...]:
    """Those of them that are measured; with one, the run prices times."""
    return measured_names(priced_costs(recipe))


def is_of_batches(recipe: Recipe, cost: str) -> bool:
    """Whether a cost goes by a server's batches, not by the recipe's latency."""
    return cost == THROUGHPUT and recipe.latency.throughput is not None


def prices_batches(recipe: Recipe) -> bool:
    """Whether candidates are priced by the time of a server's batches."""
    return any(is_of_batches(recipe, name) for name in priced_measured_costs(recipe))


def prices_latencies(recipe: Recipe) -> bool:
    """Whether candidates are priced by their latency."""
    return any(not is_of_batches(recipe, name) for name in priced_measured_costs(recipe))


def find_latency_file(run: Run) -> Path | None:
    """The profile or predictor that prices candidates; a profile that the recipe lacks is made.

    None when nothing is priced by a file.
    """
    latency = run.recipe.latency
    if not prices_latencies(run.recipe) or latency.source == "measurement":
        return None
    given = latency.predictor if latency.source == "predictor" else latency.profile
    if given is not None:
        return Path(given)
    return _made(run, "profile", run.protocol, MEASURED)


def find_throughput_file(run: Run) -> Path | None:
    """The profile that prices a server's batches; one that the recipe lacks is made. None as of latencies.

    Raises:
        InputError: latencies are of another machine, and its profile of such batches is missing.
    """
    latency, protocol = run.recipe.latency, run.recipe.throughput_protocol()
    if not prices_batches(run.recipe) or latency.throughput is None or protocol is None:
        return None
    if latency.source == "measurement":
        return None
    if latency.throughput.profile is not None:
        return Path(latency.throughput.profile)
    if latency.profile is not None and is_of_another_machine(latency, Path(latency.profile)):
        mend = f"make one there with `automoe profile --batch {protocol.batch}`"
        raise InputError(
            "latency.throughput.profile: missing, as latency.profile is of another machine", [mend]
        )
    return _made(run, "profile-throughput", protocol, TOGETHER)


def _made(run: Run, name: str, protocol: MeasuringProtocol, inputs: tuple[str, ...]) -> Path:
    say, bar = run.reporter.say, run.reporter.bar(name)

    def work(folder: Path) -> None:
        make_profile(run.space, protocol, folder / "device.json", say, progress=bar)

    return run.folder.stage(name, run.chosen("space", *inputs), work).folder / "device.json"


def price_inputs(run: Run, file: Path | None, throughput_file: Path | None = None) -> dict[str, Any]:
    """What decides the prices of candidates, as inputs of a stage.

    Args:
        file, throughput_file: as `find_latency_file` and `find_throughput_file` give them.
    """
    latency = run.recipe.latency
    inputs = run.chosen(*COUNTED)
    if any(COSTS[name].of_engine for name in priced_costs(run.recipe)):
        inputs |= run.chosen("latency.backend", "latency.precision")
    if not priced_measured_costs(run.recipe):
        return inputs
    inputs = run.chosen(*MEASURED, "latency.source")
    if latency.source == "measurement":
        inputs |= run.chosen("latency.search_runs")
    elif prices_latencies(run.recipe):
        if given := next((kind for kind in ("profile", "predictor") if getattr(latency, kind)), None):
            inputs |= run.chosen(f"latency.{given}")
        elif file is not None:
            inputs |= {"the profile of this device": content_digest(file)}
    if prices_batches(run.recipe):
        inputs |= run.chosen("latency.throughput.batch")
        if latency.throughput and latency.throughput.profile:
            inputs |= run.chosen("latency.throughput.profile")
        elif throughput_file is not None:
            inputs |= {"the profile of this device, of batches": content_digest(throughput_file)}
    return inputs
