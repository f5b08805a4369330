"""What a recipe may say of a teacher and its students; everything wrong with it is told at once."""

from pathlib import Path
from typing import Any

import pytest

from automoe.data.tokenizer import Tokenizer
from automoe.errors import InputError
from automoe.inference.model_folder import add_to_card
from automoe.run.inputs import recipe_values
from automoe.run.recipe import LoadedRecipe, load_recipe
from helpers.tiny_run import write_tiny_recipe
from helpers.toy_teacher import digit_tokenizer, save_teacher


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return digit_tokenizer(21)


def loaded(folder: Path, distillation: str, *overrides: str) -> LoadedRecipe:
    return load_recipe(write_tiny_recipe(folder), [f"distillation={distillation}", *overrides])


def problems(folder: Path, distillation: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        loaded(folder, distillation, *overrides)
    return caught.value.problems


def values(recipe: LoadedRecipe) -> dict[str, Any]:
    found = recipe_values(recipe)
    return {name: value for name, value in found.items() if name.startswith("distillation")}


def test_a_recipe_without_a_teacher_has_no_values_of_one(tmp_path):
    assert values(load_recipe(write_tiny_recipe(tmp_path))) == {}
    assert load_recipe(write_tiny_recipe(tmp_path)).recipe.twins == {}


def test_a_system_teaches_by_itself_or_with_what_it_is_with_every_seed(tmp_path):
    alone = loaded(tmp_path, "{teacher: dense, students: [automoe, dense]}")
    assert values(alone) == {"distillation.beam_size": 5, "distillation.teacher": "dense"}
    assert alone.recipe.twins == {"automoe-distilled": "automoe", "dense-distilled": "dense"}
    together = loaded(tmp_path, "{teacher: {ensemble: dense}, beam_size: 3, students: [hat]}", "seeds=[1, 2]")
    assert values(together) == {"distillation.beam_size": 3, "distillation.teacher": "dense of all seeds"}


def test_a_folder_counts_by_what_is_in_it_and_not_by_its_card(tmp_path, tokenizer):
    save_teacher(tmp_path / "one", tokenizer, seed=1)
    save_teacher(tmp_path / "copy", tokenizer, seed=1)
    save_teacher(tmp_path / "other", tokenizer, seed=2)
    add_to_card(tmp_path / "copy", {"source_language": "en-GB", "target_language": "DE", "BLEU": 12.0})
    one, copy, other = (
        values(loaded(tmp_path, f"{{teacher: {name}, students: [hat]}}")) for name in ("one", "copy", "other")
    )
    assert one == copy != other
    both = loaded(tmp_path, "{teacher: {ensemble: [one, other]}, students: [hat]}")
    assert values(both)["distillation.teacher"] == [
        *one["distillation.teacher"],
        *other["distillation.teacher"],
    ]


def test_a_system_goes_before_a_folder_of_its_name(tmp_path, tokenizer):
    save_teacher(tmp_path / "dense", tokenizer)
    assert values(loaded(tmp_path, "{teacher: dense, students: [hat]}"))["distillation.teacher"] == "dense"
    found = values(loaded(tmp_path, "{teacher: ./dense, students: [hat]}"))["distillation.teacher"]
    assert len(found) == 1


def test_whatever_is_wrong_is_told_at_once(tmp_path):
    known = "(there are: automoe, dense, hat, switch, random)"
    assert problems(tmp_path, "{teacher: danse, students: [hat, hat, automoo]}", "seeds=[1]") == (
        "distillation.students: hat is there 2 times, expected once",
        f"distillation.students: no system is called automoo {known}",
        f"distillation.teacher: no system is called danse {known}, "
        f"and there is no folder {tmp_path / 'danse'}",
    )
    assert problems(tmp_path, "{teacher: {ensemble: danse}, students: [hat]}") == (
        f"distillation.teacher.ensemble: no system is called danse {known}; folders stand in a list",
    )
    (seeds,) = problems(tmp_path, "{teacher: {ensemble: dense}, students: [hat]}")
    assert seeds.startswith("distillation.teacher: dense with all seeds is no ensemble of one seed")


@pytest.mark.parametrize(
    "teacher", ["3", "[dense]", "{ensemble: 3}", "{ensemble: [3, 4]}", "{ensembles: dense}"]
)
def test_a_teacher_of_no_kind_is_refused_with_the_kinds_there_are(tmp_path, teacher):
    (problem,) = problems(tmp_path, f"{{teacher: {teacher}, students: [hat]}}")
    assert problem.startswith(
        "distillation.teacher: expected a system, the folder of a model, or an ensemble"
    )


def test_no_students_and_impossible_beams_are_refused(tmp_path):
    found = problems(tmp_path, "{teacher: dense, students: [], beam_size: 0}")
    assert [problem.partition(":")[0] for problem in found] == [
        "distillation.beam_size",
        "distillation.students",
    ]


def test_a_system_of_the_name_that_a_student_would_get_is_refused(tmp_path):
    systems = "{name: a, architecture: largest-dense}, {name: a-distilled, architecture: uniform}"
    (problem,) = problems(
        tmp_path, "{teacher: a, students: [a]}", f"systems=[{systems}]", "baseline=a", "fine_tuning=null"
    )
    assert problem.startswith("distillation.students: a-distilled is what a becomes")


def test_folders_that_cannot_teach_are_all_told(tmp_path, tokenizer):
    save_teacher(tmp_path / "one", tokenizer)
    save_teacher(tmp_path / "french", tokenizer, seed=2)
    add_to_card(tmp_path / "french", {"source_language": "de", "target_language": "fr"})
    save_teacher(tmp_path / "words", digit_tokenizer(18), seed=3)
    (tmp_path / "empty").mkdir()
    found = problems(tmp_path, "{teacher: {ensemble: [one, french, words, empty, gone]}, students: [hat]}")
    assert found[:2] == (
        f"distillation.teacher: {tmp_path / 'french'}: its source_language is de, the recipe's en",
        f"distillation.teacher: {tmp_path / 'french'}: its target_language is fr, the recipe's de",
    )
    assert found[2].startswith(
        f"distillation.teacher: {tmp_path / 'empty'}: is not a model folder; config.json"
    )
    assert found[3].startswith("distillation.teacher: no system is called gone (there are: automoe, ")
    assert found[3].endswith(f", and there is no folder {tmp_path / 'gone'}")
    assert found[4] == (
        f"distillation.teacher.ensemble: {tmp_path / 'words'} has another vocabulary (tokenizer.json) than "
        f"{tmp_path / 'one'}"
    )
    assert len(found) == 5
    assert problems(tmp_path, "{teacher: {ensemble: [one, one]}, students: [hat]}") == (
        f"distillation.teacher.ensemble: {tmp_path / 'one'} is there 2 times, expected once",
    )
    for alone in ("[one]", "[dense]"):
        (problem,) = problems(
            tmp_path, f"{{teacher: {{ensemble: {alone}}}, students: [hat]}}", "seeds=[1, 2]"
        )
        assert problem.startswith("distillation.teacher: expected at least two in the list of an ensemble")


def test_systems_teach_together_and_not_beside_folders(tmp_path, tokenizer):
    several = loaded(tmp_path, "{teacher: {ensemble: [dense, switch]}, students: [hat]}", "seeds=[1]")
    assert values(several)["distillation.teacher"] == "dense, switch"
    save_teacher(tmp_path / "one", tokenizer)
    (problem,) = problems(tmp_path, "{teacher: {ensemble: [dense, one]}, students: [hat]}")
    assert problem.startswith("distillation.teacher.ensemble: no system is called one (there are: automoe, ")
    assert problems(tmp_path, "{teacher: {ensemble: [dense, dense]}, students: [hat]}") == (
        "distillation.teacher.ensemble: dense is there 2 times, expected once",
    )
