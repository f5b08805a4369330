"""What a run's YAML may say; `recipes/demo.yaml` explains every line.

Paths in a recipe are relative to the recipe's own folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import CorpusSource, Limits
from automoe.design.space import SearchSpace, load_space
from automoe.errors import InputError
from automoe.inference.backends import Backend, Precision
from automoe.inference.beam import BeamSettings
from automoe.search.constraint import parse_constraints
from automoe.search.evolution import EvolutionSettings
from automoe.storage import read_mapping
from automoe.training.loop import TrainingSettings

System = Literal["automoe", "dense", "hat", "switch", "random"]
# To be replaced by the table of costs: every cost that may be bounded, and whether more of it is better.
KNOWN_COSTS = {
    "latency_ms": False,
    "flops": False,
    "parameters": False,
    "active_parameters": False,
    "memory_bytes": False,
}
AtLeastOne = Annotated[int, Field(ge=1)]
Bound = Annotated[float, Field(gt=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


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
    limits: Limits = Limits()
    max_tokens: AtLeastOne = 128


class Model(_Section):
    """What is not searched: norm position, and dropout at the space's largest width."""

    norm: Literal["pre", "post"] = "post"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Search(_Section):
    """How sub-networks are ranked and which budget they keep.

    `sentences`: of the validation set, for ranking. `constraints`: cost name to bound, in the unit of
    the name, or a share such as "60%" of what the space's largest dense Transformer costs.
    """

    rank_by: Literal["loss", "bleu"] = "loss"
    sentences: AtLeastOne = 500
    algorithm: EvolutionSettings = EvolutionSettings()
    constraints: dict[str, Bound] = {}
    seed: int = 1


class LatencySettings(_Section):
    """How latency is measured (the papers' protocol, `automoe.cost.measure`) and what the search goes by.

    `backend`, `precision`: of the engine that will serve; that one is measured. `source`: what prices a
    candidate when there is a bound on the latency:

    - `profile`: a device profile. `profile` is the file `automoe profile` wrote, maybe on another machine;
      without one, the run makes one of the recipe's space on this machine.
    - `predictor`: the file `predictor` that `automoe predictor fit` wrote.
    - `measurement`: this machine, `search_runs` times a candidate: 300 is the papers' "gold" latency, fewer
      their "partially gold".

    Whatever the source, the winner is measured with `runs` before it wins, as is every system in the table.
    """

    backend: Backend = "torch"
    precision: Precision = "float32"
    source: Literal["profile", "predictor", "measurement"] = "profile"
    profile: str | None = None
    predictor: str | None = None
    source_length: AtLeastOne = 30
    target_length: AtLeastOne = 30
    beam_size: AtLeastOne = 5
    threads: AtLeastOne = 2
    search_runs: Annotated[int, Field(ge=10)] = 10
    runs: Annotated[int, Field(ge=10)] = 300

    @model_validator(mode="after")
    def _source_has_its_file(self) -> LatencySettings:
        problems = [
            f"{kind}: is only used with source: {kind}, but source is {self.source}"
            for kind in ("profile", "predictor")
            if getattr(self, kind) is not None and self.source != kind
        ]
        if self.source == "predictor" and self.predictor is None:
            problems.append("predictor: missing; name the file that `automoe predictor fit` wrote")
        if (self.backend, self.precision) == ("onnx", "float16"):
            problems.append("precision: onnx has no float16; it has float32 and int8")
        if problems:
            raise InputError("latency", problems)
        return self


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
    systems: tuple[System, ...] = ("automoe", "dense")
    translation: BeamSettings = BeamSettings()
    latency: LatencySettings = LatencySettings()

    def protocol(self) -> MeasuringProtocol:
        """How every latency of this recipe is measured."""
        latency = self.latency
        return MeasuringProtocol(
            backend=latency.backend,
            precision=latency.precision,
            threads=latency.threads,
            beam_size=latency.beam_size,
            source_length=latency.source_length,
            target_length=latency.target_length,
            vocabulary_size=self.data.vocabulary.size,
            norm=self.model.norm,
        )

    def plain(self, *sections: str) -> dict[str, Any]:
        """Some of the recipe's sections as JSON values, for fingerprints."""
        dumped: dict[str, Any] = TypeAdapter(Recipe).dump_python(self, mode="json", include=set(sections))
        return dumped


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
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        raise InputError(f"{path}: is not a usable recipe", [_sentence(e) for e in error.errors()]) from error
    except InputError as error:  # a section's own checks
        raise InputError(f"{path}: {error.summary}", error.problems) from error
    recipe = _with_absolute_paths(recipe, path.parent)
    repeated = {s for s in recipe.systems if recipe.systems.count(s) > 1}
    if repeated or "automoe" not in recipe.systems:
        problem = "systems: expected automoe, and each system at most once"
        raise InputError(f"{path}: is not a usable recipe", [problem])
    try:
        bounds = {k: 1.0 if isinstance(v, str) else v for k, v in recipe.search.constraints.items()}
        parse_constraints(bounds, KNOWN_COSTS)
    except InputError as error:
        raise InputError(f"{path}: search.{error.summary}", error.problems) from error
    return LoadedRecipe(recipe, load_space(recipe.space))


def _apply(plain: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{override}: is not key=value", ["write e.g. training.steps=100"])
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{override}: the value is not YAML", [str(error)]) from error
    *parents, last = key.split(".")
    section: Any = plain
    for parent in parents:
        section = section.setdefault(parent, {}) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise InputError(f"{override}: {'.'.join(parents)} is not a section of the recipe")
    section[last] = value


def _sentence(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: unknown key"
    message = str(error["msg"])
    got = "" if error["type"].startswith("missing") else f", got {error['input']!r:.60}"
    return f"{where}: {message[0].lower()}{message[1:]}{got}"


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
    files = {
        kind: str((folder / value).resolve())
        for kind in ("profile", "predictor")
        if (value := getattr(recipe.latency, kind))
    }
    latency = recipe.latency.model_copy(update=files)
    space = str((folder / recipe.space).resolve())
    return recipe.model_copy(update={"data": data, "latency": latency, "space": space})
