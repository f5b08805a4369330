"""What a run's YAML may say; `recipes/demo.yaml` explains every line.

Paths in a recipe are relative to the recipe's own folder; `~` is the user's home.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from automoe.cost.latency_settings import LatencySettings
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import CorpusLimits, CorpusSource
from automoe.design.architecture import Architecture, Norm
from automoe.design.architecture_file import load_architecture
from automoe.design.space import SearchSpace, load_space, space_misfits
from automoe.errors import AtLeastOne, AtLeastZero, InputError, Positive, validate_plain
from automoe.evaluation.bleu import bleu_metric
from automoe.inference.beam_settings import BeamSettings
from automoe.run.distillation import Distillation, distillation_problems, distilled_name
from automoe.run.systems import (
    UNIFORM,
    Name,
    RecipeBound,
    RecipeBounds,
    System,
    check_systems,
    fine_tuned_names,
)
from automoe.search.evolution import EvolutionSettings
from automoe.search.race import plan_rungs
from automoe.storage import parse_yaml, read_mapping, user_path
from automoe.training.settings import SupernetSettings, TrainingSettings


def _off(finals: Any) -> Any:
    return None if finals in ("off", "no", False) else finals


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("expected each seed once")
    return seeds


SPLITS = ("train", "valid", "test")
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what the generators of random numbers take


def _scored(target_language: str) -> str:
    """Raises an InputError now, not when everything is trained, where there is no metric for the language."""
    bleu_metric(target_language)
    return target_language


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Vocabulary(_Section):
    """The joint subword vocabulary: `size` tokens (special ones included) of a `kind`."""

    size: Annotated[int, Field(ge=8)]
    kind: Literal["unigram", "bpe"] = "unigram"


class Data(_Section):
    """The corpora. `target_language` is a code such as `de` or `zh-CN`, which BLEU follows; `limits` drop
    what cannot be trained on.

    `max_tokens`: a pair with a longer side leaves the training and validation data.
    """

    train: CorpusSource
    valid: CorpusSource
    test: CorpusSource
    source_language: str
    target_language: Annotated[str, AfterValidator(_scored)]
    vocabulary: Vocabulary
    limits: CorpusLimits = CorpusLimits()
    max_tokens: AtLeastOne = 128


class Model(_Section):
    """What is not searched: norm position, and dropout at the space's largest width."""

    norm: Norm = "post"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class OwnSteps(_Section):
    """The best of a search scored again, each after `steps` updates of its own from inherited weights.

    `candidates`: how many; where there are finals, dense ones have the same share of them as of the
    finalists. `peak_rate`: the highest learning rate of those steps.
    """

    steps: AtLeastOne = 100
    candidates: AtLeastOne = 24
    peak_rate: Positive = 1e-3


class Search(_Section):
    """How sub-networks are ranked and which budget they keep.

    `sentences`: of the validation set, for ranking. `constraints`: cost name to bound, in the unit of
    the name, or a share such as "60%" of what the baseline costs; a system may have its own. `own_steps`:
    score the best again after steps of their own; not the paper's.
    """

    rank_by: Literal["loss", "bleu"] = "loss"
    sentences: AtLeastOne = 500
    algorithm: EvolutionSettings = EvolutionSettings()
    constraints: RecipeBounds = {}
    own_steps: OwnSteps | None = None


class Finals(_Section):
    """The best candidates of a search race by real training; the winner's goes on to its end.

    `candidates`: how many race, at least `dense` of them dense ones, at most `per_shape` dense ones and as
    many mixtures with the same widths and numbers of layers, and each at least `min_distance` genes from the
    others, as far as the search found such. `price`: what the losers' steps may be together, in trainings:
    the steps of the rungs follow from it.
    """

    candidates: Annotated[int, Field(ge=2)] = 8
    dense: AtLeastZero = 2
    min_distance: AtLeastZero = 2
    per_shape: AtLeastOne = 1
    price: Annotated[float, Field(gt=0, le=1)] = 0.6

    @model_validator(mode="after")
    def _dense_ones_have_places(self) -> Finals:
        if self.dense > self.candidates:
            known = f"expected at most candidates ({self.candidates})"
            raise InputError("these finals are impossible", [f"dense: {known}, got {self.dense}"])
        return self


class Recipe(_Section):
    """One run, from corpus to table.

    `systems`: what is trained and compared. `baseline`: the system that shares of a budget and ratios of the
    table refer to; by default the first with an architecture of its own, or without one the space's largest
    dense Transformer for the budget and the first system for the table. `seeds`: everything random is
    repeated with each. `finals`: `off` is the paper's method, the best inherited score wins. `fine_tuning`:
    the first system that is searched for also with the supernet's weights, as they are and trained on.
    `distillation`: some systems once more, trained also on what a teacher makes of the training sources.
    """

    name: Name
    space: str
    data: Data
    model: Model = Model()
    supernet: SupernetSettings
    search: Search = Search()
    finals: Annotated[Finals | None, BeforeValidator(_off)] = None
    training: TrainingSettings
    fine_tuning: TrainingSettings | None = None
    distillation: Distillation | None = None
    systems: Annotated[tuple[System, ...], AfterValidator(check_systems)]
    baseline: str | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_different)] = (1,)
    translation: BeamSettings = BeamSettings()
    latency: LatencySettings = LatencySettings()

    @model_validator(mode="after")
    def _race_has_steps(self) -> Recipe:
        """Known before the supernet and the searches are paid for."""
        if self.finals and self.searched:
            rungs = plan_rungs(self.finals.candidates, self.training.steps, self.finals.price)
            warmup_steps = self.training.warmup_steps
            if rungs[0].step <= warmup_steps:
                problem = f"finals: half would leave at step {rungs[0].step}, within training.warmup_steps"
                mend = "let fewer race, raise finals.price, or warm up for less"
                raise InputError("finals", [f"{problem} ({warmup_steps}); {mend}"])
        return self

    @model_validator(mode="after")
    def _can_be_measured(self) -> Recipe:
        """Lengths, beams and threads beyond bounds are known now, not when everything is trained."""
        try:
            self.protocol()
        except InputError as error:
            raise InputError("latency", [f"latency.{problem}" for problem in error.problems]) from error
        try:
            self.throughput_protocol()
        except InputError as error:
            problems = [f"latency.throughput.{problem}" for problem in error.problems]
            raise InputError("latency", problems) from error
        return self

    @model_validator(mode="after")
    def _fixed_baseline(self) -> Recipe:
        fixed = [system.name for system in self.systems if system.search is None]
        if self.baseline is not None and self.baseline not in fixed:
            problem = f"baseline: expected a system with an architecture ({', '.join(fixed) or 'none here'})"
            raise InputError("baseline", [f"{problem}, got {self.baseline!r}"])
        uniform = [system.name for system in self.systems if system.architecture == UNIFORM]
        if self.baseline in uniform:
            raise InputError("baseline", [f"baseline: {self.baseline} is itself made from the baseline"])
        own, finals = self.search.own_steps, self.finals
        if own and finals and own.candidates < finals.candidates:
            problem = f"own_steps.candidates: expected at least finals.candidates ({finals.candidates})"
            raise InputError("search", [f"{problem}, got {own.candidates}"])
        if taken := [name for name in self.names if name in self.fine_tuned]:
            raise InputError("systems", [f"{name}: is what fine_tuning makes; rename it" for name in taken])
        return self

    @property
    def baseline_system(self) -> System | None:
        """The system that budgets and ratios refer to, if one has an architecture of its own."""
        fixed = [s for s in self.systems if s.search is None and s.architecture != UNIFORM]
        return next((s for s in fixed if self.baseline in (None, s.name)), None)

    @property
    def searched(self) -> tuple[System, ...]:
        """The systems that are found by searching, in their order."""
        return tuple(system for system in self.systems if system.search is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the systems, in their order."""
        return tuple(system.name for system in self.systems)

    @property
    def fine_tuned(self) -> tuple[str, ...]:
        """What `fine_tuning` makes of the first searched system, by name."""
        made = self.fine_tuning is not None and self.searched
        return tuple(fine_tuned_names(self.searched[0].name)) if made else ()

    @property
    def twins(self) -> dict[str, str]:
        """By the name of a student, the system that is the same without distillation."""
        return (
            {distilled_name(name): name for name in self.distillation.students} if self.distillation else {}
        )

    def constraints_of(self, system: System) -> dict[str, RecipeBound]:
        """The bounds that a searched system has to keep."""
        return self.search.constraints if system.constraints is None else system.constraints

    def protocol(self) -> MeasuringProtocol:
        """How every latency of this recipe is measured."""
        of_protocol = {field.name for field in dataclasses.fields(MeasuringProtocol)}
        settings = dataclasses.asdict(self.latency)
        shared = {name: value for name, value in settings.items() if name in of_protocol}
        return MeasuringProtocol(vocabulary_size=self.data.vocabulary.size, norm=self.model.norm, **shared)

    def throughput_protocol(self) -> MeasuringProtocol | None:
        """How a server's batches are measured; None where throughput goes by the latency."""
        together = self.latency.throughput
        return dataclasses.replace(self.protocol(), batch=together.batch) if together else None

    def with_seed(self, seed: int) -> Recipe:
        """The recipe with everything random from `seed`."""
        seeded = {
            name: dataclasses.replace(settings, seed=seed)
            for name in ("supernet", "training", "fine_tuning")
            if (settings := getattr(self, name)) is not None
        }
        return self.model_copy(update={**seeded, "seeds": (seed,)})


@dataclasses.dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, and what its files describe.

    Attributes:
        space: of the supernet. `architectures`: by system, those that files describe. `spaces`: by searched
            system, where it is searched for.
    """

    recipe: Recipe
    space: SearchSpace
    architectures: Mapping[str, Architecture]
    spaces: Mapping[str, SearchSpace]

    @property
    def baseline(self) -> Architecture:
        """What shares of a budget refer to."""
        system = self.recipe.baseline_system
        return self.architectures[system.name] if system and system.is_file else self.space.largest_dense()

    def fixed(self) -> dict[str, Architecture]:
        """The architectures of the systems that are not searched for, by name."""
        dense, uniform = self.space.largest_dense(), self.space.uniform(self.baseline)
        return {
            system.name: self.architectures.get(
                system.name, uniform if system.architecture == UNIFORM else dense
            )
            for system in self.recipe.systems
            if system.search is None
        }


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe; `overrides` such as `training.steps=100` replace single values.

    Args:
        path: a file; what else the command line takes for a recipe, `automoe.cli.built_in` finds.

    Raises:
        InputError: listing every unknown key, wrong type and missing value, in recipe or space.
    """
    path = Path(path)
    plain = read_mapping(path)
    for override in overrides:
        _apply(plain, override)
    if problems := _own_seeds(plain):
        raise InputError(f"{path}: is not a usable recipe", problems)
    recipe = validate_plain(Recipe, plain, f"{path}: is not a usable recipe")
    recipe = _with_absolute_paths(recipe, path.parent)
    space = load_space(recipe.space)
    architectures, spaces, problems = {}, {}, []
    for system in recipe.systems:
        try:
            if system.is_file:
                architectures[system.name] = load_architecture(str(system.architecture))
            elif system.search is not None:
                spaces[system.name] = _part_of(space, system)
        except InputError as error:
            problems.append(f"systems: {system.name}: {error}")
    problems += _problems_of_distillation(recipe)
    if problems:
        raise InputError(f"{path}: is not a usable recipe", problems)
    return LoadedRecipe(recipe, space, architectures, spaces)


def _part_of(space: SearchSpace, system: System) -> SearchSpace:
    """Where a system is searched for.

    Raises:
        InputError: its space's file cannot be used, or has members that are no part of the supernet.
    """
    part = space
    if system.space is not None:
        part = load_space(system.space)
        if problems := space_misfits(part, space):
            raise InputError(
                f"{system.space}: is no part of the recipe's space, whose weights it needs", problems
            )
    return part.dense() if system.experts == "dense" else part


def _problems_of_distillation(recipe: Recipe) -> list[str]:
    if recipe.distillation is None:
        return []
    languages = recipe.data.source_language, recipe.data.target_language
    return distillation_problems(
        recipe.distillation, recipe.names, recipe.fine_tuned, len(recipe.seeds), languages
    )


def _own_seeds(plain: Mapping[str, Any]) -> list[str]:
    return [
        f"{section}.seed: remove it; `seeds` of the recipe sets every seed"
        for section in ("supernet", "search", "training", "fine_tuning")
        if isinstance(plain.get(section), dict) and "seed" in plain[section]
    ]


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
    def absolute(path: str) -> str:
        """A link keeps its name, whose suffix says what is in the file; what it leads to may have none."""
        given = folder / user_path(path)
        return os.path.join(os.path.realpath(given.parent), given.name)

    def made_absolute(settings: Any, *fields: str) -> Any:
        given = {field: value for field in fields if (value := getattr(settings, field))}
        return dataclasses.replace(settings, **{field: absolute(value) for field, value in given.items()})

    def local_dataset(source: CorpusSource) -> list[str]:
        """A name that is a folder here means that folder, as everywhere in a recipe."""
        return ["dataset"] if source.dataset and os.path.isdir(absolute(source.dataset)) else []

    sources = {split: _with_languages(getattr(recipe.data, split), recipe.data) for split in SPLITS}
    splits = {
        split: made_absolute(source, "path", "source_path", "target_path", *local_dataset(source))
        for split, source in sources.items()
    }
    data = recipe.data.model_copy(update=splits)
    latency = made_absolute(recipe.latency, "profile", "predictor")
    if latency.throughput is not None:
        together = made_absolute(latency.throughput, "profile")
        latency = dataclasses.replace(latency, throughput=together)
    systems = tuple(
        system.model_copy(
            update={
                field: absolute(value)
                for field in ("architecture", "space")
                if (value := getattr(system, field)) and (field == "space" or system.is_file)
            }
        )
        for system in recipe.systems
    )
    changed: dict[str, Any] = {"data": data, "latency": latency, "systems": systems}
    if recipe.distillation is not None:
        changed["distillation"] = recipe.distillation.with_paths(recipe.names, absolute)
    return recipe.model_copy(update={**changed, "space": absolute(recipe.space)})


def _with_languages(source: CorpusSource, data: Data) -> CorpusSource:
    """A TMX file holds several languages: unless it says otherwise, those of the recipe are meant."""
    if source.source_language is not None or not source.is_tmx:
        return source
    languages = {"source_language": data.source_language, "target_language": data.target_language}
    return dataclasses.replace(source, **languages)
