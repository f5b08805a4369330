"""`Distillation`: which model teaches which systems, as a recipe declares it, and whether it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from automoe.errors import InputError
from automoe.inference.beam_settings import LARGEST_BEAM
from automoe.inference.model_folder import TOKENIZER, read_card, read_model
from automoe.storage import file_digest


class DeclaredTeacher(BaseModel):
    """What teaches: systems of the run, or models of folders.

    Attributes:
        names: of systems, or the paths of folders.
        ensemble: whether it was declared as one.
    """

    model_config = ConfigDict(frozen=True)

    names: tuple[str, ...]
    ensemble: bool = False


def _teacher(plain: Any) -> DeclaredTeacher:
    if isinstance(plain, DeclaredTeacher):
        return plain
    if isinstance(plain, str) and plain:
        return DeclaredTeacher(names=(plain,))
    if isinstance(plain, dict) and list(plain) == ["ensemble"]:
        members = plain["ensemble"]
        if isinstance(members, str) and members:
            return DeclaredTeacher(names=(members,), ensemble=True)
        if isinstance(members, list) and all(isinstance(one, str) and one for one in members):
            if len(members) < 2:
                alone = "{ensemble: SYSTEM} without a list is what a system is with every seed"
                raise ValueError(f"expected at least two in the list of an ensemble; {alone}")
            return DeclaredTeacher(names=tuple(members), ensemble=True)
    ensembles = "{ensemble: [SYSTEM, ...]}, {ensemble: [FOLDER, ...]} or {ensemble: SYSTEM}, with all seeds"
    raise ValueError(f"expected a system, the folder of a model, or an ensemble: {ensembles}")


class Distillation(BaseModel):
    """Sequence-level knowledge distillation (Kim & Rush, 2016).

    The teacher translates the sources that are trained on. Each student is trained once more, from scratch,
    on the original pairs and on the translated ones.

    Attributes:
        teacher: the name of a system, of which each seed's teaches that seed's students; the folder of any
            model of the same languages, whatever its vocabulary; `{ensemble: SYSTEM}`, which is what that
            system has become with each of the seeds; `{ensemble: [SYSTEM, ...]}`, of which each seed's teach
            that seed's students; or `{ensemble: [FOLDER, ...]}`, models of one vocabulary. An ensemble
            averages the probabilities of its members at each step.
        beam_size: of the teacher's search. All else of it is the recipe's `translation`.
        students: systems, each of which gets a twin `NAME-distilled` of the same architecture, trained for
            as many steps.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    teacher: Annotated[DeclaredTeacher, BeforeValidator(_teacher)]
    beam_size: Annotated[int, Field(ge=1, le=LARGEST_BEAM)] = 5
    students: Annotated[tuple[str, ...], Field(min_length=1)]

    def taught_by(self, systems: Sequence[str]) -> tuple[str, ...]:
        """The systems that teach, if any do."""
        return tuple(name for name in self.teacher.names if name in systems)

    def over_seeds(self, systems: Sequence[str]) -> bool:
        """Whether the models of all seeds teach together: where one system is an ensemble."""
        return self.teacher.ensemble and len(self.taught_by(systems)) == 1

    def folders(self, systems: Sequence[str]) -> tuple[str, ...]:
        """The models that teach, where these are no system's."""
        return tuple(name for name in self.teacher.names if name not in systems)

    def with_paths(self, systems: Sequence[str], absolute: Callable[[str], str]) -> Distillation:
        """The same with the paths of folders changed."""
        names = tuple(name if name in systems else absolute(name) for name in self.teacher.names)
        return self.model_copy(update={"teacher": self.teacher.model_copy(update={"names": names})})


def distilled_name(system: str) -> str:
    """What the twin of a system is called that is trained on distilled pairs, too."""
    return f"{system}-distilled"


def distillation_problems(
    distillation: Distillation,
    systems: Sequence[str],
    made: Sequence[str],
    seeds: int,
    languages: tuple[str, str],
) -> list[str]:
    """Everything that is wrong with it, one sentence each; folders are read, but not their weights.

    Args:
        systems: the recipe's. `made`: the names of other rows, which are made of these.
        seeds: how many there are.
        languages: the recipe's source and target.
    """
    return [
        f"distillation.{problem}"
        for problem in (
            *_problems_of_students(distillation, systems, made),
            *_problems_of_teacher(distillation, systems, seeds, languages),
        )
    ]


def _problems_of_students(
    distillation: Distillation, systems: Sequence[str], made: Sequence[str]
) -> Iterator[str]:
    for name, times in Counter(distillation.students).items():
        if times > 1:
            yield f"students: {name} is there {times} times, expected once"
        if name not in systems:
            yield f"students: no system is called {name} (there are: {', '.join(systems)})"
        elif distilled_name(name) in (*systems, *made):
            yield f"students: {distilled_name(name)} is what {name} becomes; rename the system of this name"


def _problems_of_teacher(
    distillation: Distillation, systems: Sequence[str], seeds: int, languages: tuple[str, str]
) -> Iterator[str]:
    teacher = distillation.teacher
    taught_by, folders = distillation.taught_by(systems), distillation.folders(systems)
    known = f"there are: {', '.join(systems)}"
    for name, times in Counter(teacher.names).items():
        if times > 1:
            yield f"teacher.ensemble: {name} is there {times} times, expected once"
    if taught_by and folders:
        names = ", ".join(Path(folder).name for folder in folders)
        yield (
            f"teacher.ensemble: no system is called {names} ({known}), and folders do not teach together "
            "with systems; a system's model is a folder, too: train-SYSTEM/model of a run's seed-N"
        )
        return
    if taught_by:
        if distillation.over_seeds(systems) and seeds < 2:
            yield f"teacher: {taught_by[0]} with all seeds is no ensemble of one seed; add some to seeds"
        return
    if len(folders) == 1 and teacher.ensemble:
        name = Path(folders[0]).name
        yield f"teacher.ensemble: no system is called {name} ({known}); folders stand in a list"
        return
    vocabularies: dict[str, str | None] = {}
    for folder in dict.fromkeys(folders):
        if not Path(folder).is_dir():
            name = Path(folder).name
            yield f"teacher: no system is called {name} ({known}), and there is no folder {folder}"
            continue
        try:
            read_model(folder)
            card = read_card(folder)
        except InputError as error:
            yield f"teacher: {error.summary}" + "".join(f"; {problem}" for problem in error.problems)
            continue
        vocabularies[folder] = file_digest(Path(folder) / TOKENIZER)
        yield from (f"teacher: {folder}: {problem}" for problem in _other_languages(card, languages))
    first = next(iter(vocabularies), "")
    for folder, vocabulary in vocabularies.items():
        if vocabulary != vocabularies[first]:
            yield f"teacher.ensemble: {folder} has another vocabulary ({TOKENIZER}) than {first}"


def _other_languages(card: Mapping[str, Any], languages: tuple[str, str]) -> Iterator[str]:
    """Where a model's card tells other languages than the recipe's; variants of one language are alike."""
    for side, wanted in zip(("source_language", "target_language"), languages, strict=True):
        told = card.get(side)
        if isinstance(told, str) and _language(told) != _language(wanted):
            yield f"its {side} is {told}, the recipe's {wanted}"


def _language(code: str) -> str:
    """`pt` of `pt-BR`."""
    return code.replace("_", "-").partition("-")[0].lower()
