"""Options and arguments that are paths: `~` is the home in every one, the ones still to come included."""

import json
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from automoe.cli.main import app
from automoe.design.architecture import dense
from automoe.design.architecture_file import save_architecture
from helpers.paths import RECIPES

# Text that is no path. A new option of text belongs here, or is made by `path_option`.
NO_PATHS = {
    "overrides", "rules", "own_steps", "share",  # of runs
    "backend", "precision", "host", "root_path", "cors_origin", "forwarded_allow_ips",
    "min_importance",  # of models
    "config", "split", "source_column", "target_column", "source_language", "target_language",  # of texts
    "latency_ms", "flops",
    "values", "name", "system",  # of a front
}  # fmt: skip


def commands(program, prefix=()):
    """Every command by its name in words, with the function behind it."""
    for info in program.registered_commands:
        yield (*prefix, info.name or info.callback.__name__), info.callback
    for group in program.registered_groups:
        yield from commands(group.typer_instance, (*prefix, group.name) if group.name else prefix)


def kinds_of(annotation) -> set:
    """The types within an annotation: `list`, `str` and `None` of `Annotated[list[str] | None, ...]`."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    inner = get_args(annotation)[: 1 if get_origin(annotation) is Annotated else None]
    return {get_origin(annotation) or annotation}.union(*map(kinds_of, inner))


def parameters(kind: type) -> list[tuple[tuple[str, ...], str]]:
    """The parameters of this type: command and name."""
    return [
        (command, name)
        for command, function in COMMANDS.items()
        for name, annotation in get_type_hints(function, include_extras=True).items()
        if kind in kinds_of(annotation)
    ]


COMMANDS = dict(commands(app))
PATHS = parameters(Path) + [(command, name) for command, name in parameters(str) if name not in NO_PATHS]


def made(command: tuple[str, ...]):
    """The command as it parses its line."""
    found = typer.main.get_command(app)
    for word in command:
        found = found.commands[word]
    return found


def test_every_parameter_of_every_command_is_seen():
    for command, function in COMMANDS.items():
        hints = get_type_hints(function)
        assert {parameter.name for parameter in made(command).params} == hints.keys() - {"return"}, command


def test_what_is_known_to_be_a_path_is_among_them():
    assert {(*command, name) for command, name in PATHS} >= {
        ("run", "recipe"), ("run", "runs_folder"), ("space", "recipe"), ("fidelity", "runs_folder"),
        ("cost", "architecture"), ("latency", "subject"), ("profile", "output"), ("profile", "space"),
        ("profile", "check"), ("predictor", "fit", "table"), ("predictor", "fit", "output"),
        ("translate", "model"), ("serve", "model"), ("export", "model"), ("export", "output"),
        ("init", "folder"), ("init", "corpus"), ("init", "test_target"), ("init", "dataset"),
    }  # fmt: skip
    assert {name for _, name in parameters(str)} >= NO_PATHS


def arguments(parameter, value):
    """How the parameter is given on the command line."""
    return [f"{max(parameter.opts, key=len)}={value}"] if parameter.opts[0].startswith("-") else [value]


@pytest.mark.parametrize(("command", "name"), PATHS, ids=lambda value: str(value))
@pytest.mark.parametrize(
    ("given", "expected"),
    [("~/über mir/x", "/home/anna/über mir/x"), ("a/~/x", "a/~/x"), ("~", "/home/anna"), ("x", "x")],
)
def test_a_tilde_is_the_home(monkeypatch, command, name, given, expected):
    monkeypatch.setenv("HOME", "/home/anna")
    line = []
    for parameter in made(command).params:
        if parameter.name == name:
            line += arguments(parameter, given)
        elif parameter.required:
            line += arguments(parameter, "onnx")  # a format of `export`, and a path like any other
    with made(command).make_context(command[-1], line) as context:
        assert str(context.params[name]) == expected


def test_what_is_not_given_stays_so():
    with made(("profile",)).make_context("profile", []) as context:
        assert (context.params["check"], context.params["output"]) == (None, Path("device.json"))


def test_a_command_reads_and_writes_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save_architecture(dense(16, 32, 2, 2, 1), tmp_path / "mine.yaml")
    (tmp_path / "space.yaml").write_text((RECIPES / "spaces" / "demo.yaml").read_text(encoding="utf-8"))
    (tmp_path / "of-a-recipe.yaml").write_text("space: ~/space.yaml\n", encoding="utf-8")
    made = []
    monkeypatch.setattr(
        "automoe.cli.cost_commands._make", lambda protocol, space, turns, output: made.append(output) or {}
    )
    outputs = []
    for line in (
        ["cost", "~/mine.yaml", "--json"],
        ["space", "~/space.yaml"],
        ["space", "~/of-a-recipe.yaml"],
        ["profile", "--space=~/space.yaml", "-o", "~/device.json"],
    ):
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        outputs.append(result.stdout)
    assert json.loads(outputs[0])["parameters"] > 0
    assert outputs[1] == outputs[2]
    assert made == [tmp_path / "device.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "of-a-recipe.yaml", "space.yaml"]
