"""What a run's YAML may say; `recipes/demo.yaml` explains every line.

Paths in a recipe are relative to the recipe's own folder.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from automoe.cost.costs import Bound, check_bounds
from automoe.cost.latency_settings import LatencySettings
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import CorpusLimits, CorpusSource
from automoe.design.architecture import Norm
from automoe.design.space import SearchSpace, load_space
from automoe.errors import AtLeastOne, InputError, validate_plain
from automoe.inference.beam_settings import BeamSettings
from automoe.search.evolution import EvolutionSettings
from automoe.storage import parse_yaml, read_mapping
from automoe.training.settings import TrainingSettings

System = Literal["automoe", "dense", "hat", "switch", "random"]


def _number_or_share(bound: Any) -> Any:
    is_share = isinstance(bound, str) and re.fullmatch(r"\d+(\.\d+)?%", bound)
    if not is_share and (isinstance(bound, bool) or not isinstance(bound, int | float)):
        raise ValueError("expected a positive number, or a share such as 60%")
    return bound


def _known_costs(bounds: dict[str, Bound]) -> dict[str, Bound]:
    check_bounds(bounds)
    return bounds


def _once_each(systems: tuple[System, ...]) -> tuple[System, ...]:
    if "automoe" not in systems or len(set(systems)) < len(systems):
        raise ValueError("expected automoe, and each system at most once")
    return systems


RecipeBound = Annotated[float | str, BeforeValidator(_number_or_share)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Vocabulary(_Section):
    """The joint subword vocabulary: `size` tokens (special ones included) of a `kind`."""

    size: Annotated[int, Field(ge=8)]
    kind: Literal["unigram", "bpe"] = "unigram"


class Data(_Section):
    """The corpora. `target_language` is a code such as `de`; `limits` drop what cannot be trained on.

    `max_tokens`: a pair with a longer side leaves the training and validation data.
    """

    train: CorpusSource
    valid: CorpusSource
    test: CorpusSource
    source_language: str
    target_language: str
    vocabulary: Vocabulary
    limits: CorpusLimits = CorpusLimits()
    max_tokens: AtLeastOne = 128


class Model(_Section):
    """What is not searched: norm position, and dropout at the space's largest width."""

    norm: Norm = "post"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Search(_Section):
    """How sub-networks are ranked and which budget they keep.

    `sentences`: of the validation set, for ranking. `constraints`: cost name to bound, in the unit of
    the name, or a share such as "60%" of what the space's largest dense Transformer costs. `seed`: of
    every draw of a search, and of the check of the budget before it.
    """

    rank_by: Literal["loss", "bleu"] = "loss"
    sentences: AtLeastOne = 500
    algorithm: EvolutionSettings = EvolutionSettings()
    constraints: Annotated[dict[str, RecipeBound], AfterValidator(_known_costs)] = {}
    seed: int = 1


class Recipe(_Section):
    """One run, from corpus to table.

    `systems`: what is trained and compared; `automoe` is the search's winner. `fine_tuning`: also
    evaluate the winner with the supernet's weights, and train it on from them.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    space: str
    data: Data
    model: Model = Model()
    supernet: TrainingSettings
    search: Search = Search()
    training: TrainingSettings
    fine_tuning: TrainingSettings | None = None
    systems: Annotated[tuple[System, ...], AfterValidator(_once_each)] = ("automoe", "dense")
    translation: BeamSettings = BeamSettings()
    latency: LatencySettings = LatencySettings()

    def protocol(self) -> MeasuringProtocol:
        """How every latency of this recipe is measured."""
        of_protocol = {field.name for field in dataclasses.fields(MeasuringProtocol)}
        settings = dataclasses.asdict(self.latency)
        shared = {name: value for name, value in settings.items() if name in of_protocol}
        return MeasuringProtocol(vocabulary_size=self.data.vocabulary.size, norm=self.model.norm, **shared)

    def plain(self, *sections: str) -> dict[str, Any]:
        """Some of the recipe's sections as JSON values, for fingerprints."""
        return self.model_dump(mode="json", include=set(sections))


@dataclasses.dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, and the space its `space` file describes."""

    recipe: Recipe
    space: SearchSpace


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe; `overrides` such as `training.steps=100` replace single values.

    Raises:
        InputError: listing every unknown key, wrong type and missing value, in recipe or space.
    """
    path = Path(path)
    plain = read_mapping(path)
    for override in overrides:
        _apply(plain, override)
    recipe = validate_plain(Recipe, plain, f"{path}: is not a usable recipe")
    recipe = _with_absolute_paths(recipe, path.parent)
    return LoadedRecipe(recipe, load_space(recipe.space))


def _apply(plain: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{override}: is not key=value", ["write e.g. training.steps=100"])
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"{override}: the value is not YAML", [str(error)]) from error
    *parents, last = key.split(".")
    section: Any = plain
    for parent in parents:
        section = section.setdefault(parent, {}) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise InputError(f"{override}: {'.'.join(parents)} is not a section of the recipe")
    section[last] = value


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    def absolute(source: CorpusSource) -> CorpusSource:
        paths = {
            name: str((folder / value).resolve())
            for name in ("path", "source_path", "target_path")
            if (value := getattr(source, name))
        }
        return dataclasses.replace(source, **paths)

    splits = {split: absolute(getattr(recipe.data, split)) for split in ("train", "valid", "test")}
    data = recipe.data.model_copy(update=splits)
    files: dict[str, Any] = {
        kind: str((folder / value).resolve())
        for kind in ("profile", "predictor")
        if (value := getattr(recipe.latency, kind))
    }
    latency = dataclasses.replace(recipe.latency, **files)
    space = str((folder / recipe.space).resolve())
    return recipe.model_copy(update={"data": data, "latency": latency, "space": space})
