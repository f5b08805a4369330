"""Arguments that are the name of a file of the package: which file they mean."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from automoe.cli.built_in import built_in, find_file
from automoe.cli.main import app
from automoe.design.architecture_file import load_architecture
from automoe.design.space import load_space
from automoe.errors import InputError
from helpers.paths import RECIPES


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch) -> None:
    """Outside the repository."""
    monkeypatch.chdir(tmp_path)


def shipped_names(folder: Path, deep: bool) -> set[str]:
    """By the operating system's walk: the names there should be."""
    names = set()
    for place, folders, files in os.walk(folder):
        names |= {os.path.relpath(os.path.join(place, file), folder)[: -len(".yaml")] for file in files}
        if not deep:
            folders.clear()
    return names


def test_every_shipped_file_has_its_name():
    assert set(built_in("recipe")) == shipped_names(RECIPES, deep=False)
    assert set(built_in("space")) == shipped_names(RECIPES / "spaces", deep=True)
    assert set(built_in("architecture")) == shipped_names(RECIPES / "architectures", deep=True)
    for path in built_in("space").values():
        assert load_space(path).size() > 0
    for path in built_in("architecture").values():
        assert load_architecture(path).encoder


@pytest.mark.parametrize(
    "given", ["demo", "demo.yaml", "my/recipe.yml", "no-suffix", "über mir/ré cipe.yaml"]
)
def test_a_file_that_exists_is_meant(tmp_path, given):
    path = Path(given)
    path.parent.mkdir(exist_ok=True)
    path.write_text("name: mine\n", encoding="utf-8")
    assert find_file(path, "recipe") == path
    assert find_file(tmp_path / path, "recipe") == tmp_path / path


def test_a_stream_is_meant_too():
    """As in `automoe run <(sed ... my.yaml)`."""
    reading, writing = os.pipe()
    try:
        assert find_file(Path(f"/dev/fd/{reading}"), "recipe") == Path(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        os.close(writing)


def test_a_folder_with_a_recipe_is_that_recipe():
    for name in ("my-project", "demo"):
        Path(name).mkdir()
        Path(name, "recipe.yaml").write_text("name: mine\n", encoding="utf-8")
        assert find_file(Path(name), "recipe") == Path(name, "recipe.yaml")
    assert find_file(Path("demo"), "space").samefile(RECIPES / "spaces" / "demo.yaml")


def test_a_name_is_of_the_package_whatever_lies_beside_it(capsys):
    expected = RECIPES / "demo.yaml"
    assert find_file(Path("demo"), "recipe").samefile(expected)
    assert capsys.readouterr().err == f"demo is the built-in recipe {expected}\n"
    Path("demo").mkdir()
    assert find_file(Path("demo"), "recipe").samefile(expected)
    Path("demo.yaml").write_text("name: mine\n", encoding="utf-8")
    capsys.readouterr()
    assert find_file(Path("demo"), "recipe").samefile(expected)
    said = capsys.readouterr()
    assert said.err.endswith("; for the file demo.yaml write demo.yaml\n")
    assert said.out == ""


def test_the_first_kind_wins_and_the_others_are_looked_at():
    assert find_file(Path("demo"), "recipe", "space").samefile(RECIPES / "demo.yaml")
    assert find_file(Path("demo"), "space").samefile(RECIPES / "spaces" / "demo.yaml")
    assert find_file(Path("hat"), "recipe", "space").samefile(RECIPES / "spaces" / "hat.yaml")
    every = RECIPES / "spaces" / "variants" / "every.yaml"
    assert find_file(Path("variants/every"), "space").samefile(every)


def test_one_of_several_processes_says_it(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    find_file(Path("demo"), "recipe")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "given", ["dmo", "demo.yml", "recipes/demo.yaml", "../demo", "Demo", "", "a" * 300, "/", "spaces/demo"]
)
def test_an_unknown_name_lists_those_there_are(given):
    expected = f"{Path(given)}: there is no file, and no built-in recipe of this name"
    with pytest.raises(InputError) as caught:
        find_file(Path(given), "recipe")
    assert caught.value.summary == expected
    assert caught.value.problems == (f"built-in recipes: {', '.join(sorted(built_in('recipe')))}",)


def test_a_forgotten_suffix_is_noticed():
    Path("mine.yaml").write_text("name: mine\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        find_file(Path("mine"), "recipe", "space")
    assert caught.value.summary == "mine: there is no file, and no built-in recipe or space of this name"
    first, *lists = caught.value.problems
    assert first == "did you mean mine.yaml?"
    assert [line.partition(":")[0] for line in lists] == ["built-in recipes", "built-in spaces"]


def test_a_run_of_a_name_is_a_folder_here(monkeypatch):
    asked = []

    def run_recipe(loaded, runs_folder, reporter, until, may_overwrite) -> None:
        asked.append((loaded.recipe.name, loaded.recipe.data.train.path, Path(runs_folder), until))

    monkeypatch.setattr("automoe.run.pipeline.run_recipe", run_recipe)
    result = CliRunner().invoke(app, ["run", "demo"])
    assert result.exit_code == 0, result.output
    corpus = RECIPES.parent / "data" / "libreoffice-help.en-de.train.tsv.xz"
    assert asked == [("demo", str(corpus), Path("runs"), "report")]


@pytest.mark.parametrize(
    ("by_name", "by_path"),
    [
        (["space", "small-cpu"], ["space", "spaces/small-cpu.yaml"]),
        (["space", "libreoffice-en-fr"], ["space", "libreoffice-en-fr.yaml"]),
        (["cost", "deep-192", "--json"], ["cost", "architectures/deep-192.yaml", "--json"]),
    ],
)
def test_commands_about_costs_take_names(by_name, by_path):
    command, file, *options = by_path
    named = CliRunner().invoke(app, by_name)
    assert named.exit_code == 0, named.output
    assert named.stdout == CliRunner().invoke(app, [command, str(RECIPES / file), *options]).stdout != ""


@pytest.mark.parametrize(
    "arguments", [["cost", "nowhere"], ["latency", "nowhere"], ["space", "nowhere"], ["fidelity", "nowhere"],
                  ["profile", "--space", "nowhere"], ["prepare", "nowhere"]]
)  # fmt: skip
def test_every_command_lists_what_there_is(arguments):
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    assert "nowhere: there is no file, and no built-in" in str(result.exception)
    assert "deep-192" in str(result.exception) or "demo" in str(result.exception)
