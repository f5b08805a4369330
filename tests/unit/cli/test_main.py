"""The command as a whole."""

from importlib.metadata import version
from typing import get_args

import pytest
from typer.testing import CliRunner

from automoe.cli.main import app, main
from automoe.run.pipeline import StageName
from helpers.tiny_run import write_tiny_recipe


def test_version_is_printed_and_nothing_else_done():
    result = CliRunner().invoke(app, ["--version", "run", "no-such-recipe.yaml"])
    assert result.exit_code == 0
    assert result.output == f"automoe {version('automoe')}\n"


@pytest.mark.parametrize("stage", get_args(StageName))
def test_every_stage_has_a_command_that_runs_up_to_it(tmp_path, monkeypatch, stage):
    asked = []

    def run_recipe(loaded, runs_folder, reporter, until, may_overwrite) -> None:
        asked.append((loaded.recipe.seeds, until))

    monkeypatch.setattr("automoe.run.pipeline.run_recipe", run_recipe)
    result = CliRunner().invoke(app, [stage, str(write_tiny_recipe(tmp_path)), "seeds=[3, 4]"])
    assert result.exit_code == 0, result.output
    assert asked == [((3, 4), stage)]


LANGUAGES = ["--source-language", "en", "--target-language", "de"]


@pytest.mark.parametrize(
    "line",
    [
        ["translate", 300 * "x"],
        ["run", "RECIPE", "--runs-folder", 300 * "x"],
        ["cost", 300 * "x"],
        ["export", 300 * "x", "--to", "onnx", "-o", "out"],
        ["export", "model", "--to", "onnx", "-o", 300 * "x"],
        ["latency", 300 * "x"],
        ["profile", "--check", 300 * "x"],
        ["predictor", "fit", 300 * "x"],
        ["init", "new", "--corpus", 300 * "x" + ".tsv", "--flops=50%", "--hours=1", *LANGUAGES],
    ],
    ids=lambda line: " ".join(line)[:20],
)
def test_a_path_that_the_system_does_not_take_is_one_message(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    recipe = write_tiny_recipe(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["automoe", *(str(recipe) if part == "RECIPE" else part for part in line)]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("automoe: ")
