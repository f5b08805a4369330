"""The Dockerfile, as far as it can be tried without an engine: its context, its command, its health check."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from automoe.cli.main import app
from helpers.paths import REPOSITORY
from helpers.served import serving, write_tiny_model

LINES = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def instructions(name: str) -> list[str]:
    """What stands behind an instruction, each time that it occurs, in order."""
    return [line.partition(" ")[2].strip() for line in LINES if line.startswith(f"{name} ")]


def words(name: str) -> list[str]:
    """Of an instruction in the form of a JSON list, its last."""
    (found,) = re.findall(r"\[.*\]$", instructions(name)[-1])
    return json.loads(found)


def test_it_ends_as_a_user_without_rights():
    assert int(instructions("USER")[-1]) > 0
    assert LINES.index(f"USER {instructions('USER')[-1]}") < LINES.index(
        f"ENTRYPOINT {instructions('ENTRYPOINT')[-1]}"
    )
    assert all(":" in image.split()[0] for image in instructions("FROM"))


def test_it_is_built_of_the_ordinary_index_without_what_trains():
    (installs,) = (line for line in instructions("RUN") if "pip install" in line)
    assert re.findall(r"'(\.\[.*?\])'", installs) == [".[runtime]"]
    assert "index" not in installs
    assert instructions("ARG") == []
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extras["optional-dependencies"]["runtime"] == ["automoe[serve]"]


def test_what_starts_serves_the_mounted_folder_to_other_machines(monkeypatch):
    asked = []
    monkeypatch.setattr("automoe.serving.server.serve", lambda *given, **_: asked.append(given[:3]))
    program, *arguments = words("ENTRYPOINT")
    assert program == "automoe"
    port = int(instructions("EXPOSE")[-1])
    result = CliRunner().invoke(app, [*arguments, *words("CMD")])
    assert result.exit_code == 0, result.output
    CliRunner().invoke(app, [*arguments, "/other", "--precision", "int8"])
    assert asked == [(Path("/model"), "0.0.0.0", port), (Path("/other"), "0.0.0.0", port)]


@pytest.mark.slow
def test_the_health_check_tells_a_server_from_none(tmp_path):
    program, option, source = words("HEALTHCHECK")
    assert (program, option) == ("python", "-c")
    port = instructions("EXPOSE")[-1]
    assert source.count(f":{port}/") == 1

    def healthy(address: str) -> bool:
        here = source.replace(f"http://127.0.0.1:{port}/", f"{address}/")
        return subprocess.run([sys.executable, "-c", here], capture_output=True).returncode == 0

    with serving(write_tiny_model(tmp_path / "model")) as (address, process):
        assert healthy(address)
        process.terminate()
        process.wait(60)
        assert not healthy(address)


@pytest.mark.slow
def test_the_package_can_be_built_of_what_is_copied(tmp_path):
    """The engine gets what `.dockerignore` lets through, and the build stage what is copied of it."""
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    context, stage = tmp_path / "context", tmp_path / "stage"
    for name in let_through:
        copied(REPOSITORY / name, context / name)
    for line in instructions("COPY"):
        if not line.startswith("--from"):
            *names, target = line.split()
            for name in names:
                copied(context / name, stage / (name if target == "./" else target))
    assert {path.name for path in stage.iterdir()} == let_through
    for source, folder in ((stage, "image"), (REPOSITORY, "clone")):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    (image,), (clone,) = (tmp_path / "image").iterdir(), (tmp_path / "clone").iterdir()
    assert image.read_bytes() == clone.read_bytes()


def copied(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
