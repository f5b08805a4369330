"""What a recipe says, as named values that stages are made from: contents in place of names of files.

A stage takes those that it uses. So nothing else, neither comments nor the order of keys, another path nor
another version of the program, makes it start again; and what did change has a name the user knows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from automoe.cost.latency_settings import ThroughputSettings
from automoe.inference.model_folder import model_digest
from automoe.run.recipe import Finals, LoadedRecipe, Recipe
from automoe.storage import digest, file_digest
from automoe.training.settings import ONCE_DECISIVE, TrainingSettings, decisive

COUNTED = (
    "model.norm",
    "data.vocabulary.size",
    "latency.source_length",
    "latency.target_length",
    "latency.beam_size",
    "latency.shortlist",
)
"""Of the measuring protocol, what decides costs that are counted."""

_ENGINE = ("latency.backend", "latency.precision", "latency.threads")

MEASURED = (*COUNTED, *_ENGINE, "latency.batch")
"""All of the measuring protocol."""

TOGETHER = (*COUNTED, *_ENGINE, "latency.throughput.batch")
"""What decides the time of a server's batches, where they have settings of their own."""

LENGTHS = (
    "translation.length_penalty",
    "translation.max_length_ratio",
    "translation.max_length_extra",
    "translation.min_length",
)
"""What decides a translation beside the beam."""

GREEDY = ("data.target_language", *LENGTHS)
"""What decides the BLEU of greedy translations: neither the beam nor how many translations are wanted."""


def recipe_values(loaded: LoadedRecipe) -> dict[str, Any]:
    """Everything that a recipe and its files say, but for the corpora, as JSON values by name.

    `SECTION.KEY` is a value of the recipe, and is there also when that section is not, but for
    `distillation`, whose `teacher` is names of systems or digests of models; `space` and
    `systems.NAME.space` hold choices, `systems.NAME.architecture` and `baseline.architecture`
    architectures, `latency.profile` and `latency.predictor` digests of what the files hold.
    """
    recipe = loaded.recipe
    plain = recipe.model_dump(mode="json")
    for section, names in (("fine_tuning", _names(TrainingSettings)), ("finals", list(Finals.model_fields))):
        plain[section] = plain[section] or dict.fromkeys(names)
    for section in ("supernet", "training", "fine_tuning"):
        plain[section] = decisive(plain[section])
    values = {
        f"{section}.{key}": value
        for section in ("model", "supernet", "search", "finals", "training", "fine_tuning", "translation")
        for key, value in plain[section].items()
        if key != "seed"  # which is the name of a folder of stages
    }
    del values["search.constraints"]  # every system has its own
    data = plain["data"]
    values |= {f"data.vocabulary.{key}": value for key, value in data["vocabulary"].items()}
    values |= {f"data.{key}": data[key] for key in ("max_tokens", "source_language", "target_language")}
    together = plain["latency"].pop("throughput") or dict.fromkeys(_names(ThroughputSettings))
    values |= {f"latency.{key}": value for key, value in plain["latency"].items()}
    for key in ("profile", "predictor"):
        file = getattr(recipe.latency, key)
        values[f"latency.{key}"] = None if file is None else content_digest(Path(file))
    if together["profile"] is not None:
        together["profile"] = content_digest(Path(together["profile"]))
    values |= {f"latency.throughput.{key}": value for key, value in together.items()}
    values["space"] = loaded.space.to_dict()
    fixed = loaded.fixed()
    for system in recipe.systems:
        own: dict[str, Any] = {"minutes_of": system.minutes_of}
        if system.search is None:
            own["architecture"] = fixed[system.name].to_dict()
        else:
            own |= {
                "search": system.search,
                "experts": system.experts,
                "space": loaded.spaces[system.name].to_dict(),
                "constraints": recipe.constraints_of(system),
            }
            if system.search == "nsga2" or system.objectives:
                own["objectives"] = [objective.name for objective in system.sought]
        values |= {f"systems.{system.name}.{key}": value for key, value in own.items()}
    if recipe.distillation is not None:
        values["distillation.beam_size"] = recipe.distillation.beam_size
        values["distillation.teacher"] = _teacher_value(recipe)
    values["baseline.architecture"] = loaded.baseline.to_dict()
    values["baseline.name"] = (recipe.baseline_system or recipe.systems[0]).name
    values["main system"] = (recipe.searched or recipe.systems)[0].name
    return values


def settings_values(settings: TrainingSettings, section: str) -> dict[str, Any]:
    """What decides a training, as `recipe_values` names it."""
    plain = dataclasses.asdict(settings)
    return {f"{section}.{key}": value for key, value in decisive(plain).items() if key != "seed"}


def former_values(settings: TrainingSettings, section: str) -> dict[str, Any]:
    """What earlier versions named as well; stages and trainings that these made are known by it."""
    return {f"{section}.{key}": getattr(settings, key) for key in ONCE_DECISIVE}


def chosen(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Some values: those with these names, and those of these sections.

    Raises:
        KeyError: there is none of a name.
    """
    found: dict[str, Any] = {}
    for name in names:
        of_name = {key: value for key, value in values.items() if name in (key, key.partition(".")[0])}
        if not of_name:
            raise KeyError(name)
        found |= of_name
    return found


def content_digest(path: Path) -> str | None:
    """The digest of the JSON value in a file, however it is written; of its bytes, if it is no JSON."""
    try:
        return digest(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return file_digest(path)


def _teacher_value(recipe: Recipe) -> Any:
    assert recipe.distillation is not None
    folders = recipe.distillation.folders(recipe.names)
    if folders:
        return [model_digest(folder) for folder in folders]
    names = ", ".join(recipe.distillation.taught_by(recipe.names))
    return f"{names} of all seeds" if recipe.distillation.over_seeds(recipe.names) else names


def _names(settings: type[TrainingSettings | ThroughputSettings]) -> list[str]:
    return [field.name for field in dataclasses.fields(settings)]
