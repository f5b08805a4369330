"""The package as it is handed out: built, installed where there is no clone, and used there."""

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from automoe import __version__
from helpers.paths import REPOSITORY

pytestmark = pytest.mark.slow  # builds in seconds; one `prepare` of the demo

# Folders of the repository, and where their files lie in the wheel.
PLACES = {"src/automoe": "automoe", "recipes": "automoe/builtin/recipes", "data": "automoe/builtin/data"}


def build(source: Path, target: str, folder: Path) -> Path:
    """What the build backend makes of a source tree, without the network, and without pip."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build(REPOSITORY, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the package alone; what it needs is in this interpreter's environment."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True, capture_output=True)
    return folder


def run(command: list[str], site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)


def names_below(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in files}


def test_the_wheel_has_every_file_once_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for folder, place in PLACES.items():
            for name in names_below(REPOSITORY / folder):
                assert archive.read(f"{place}/{name}") == (REPOSITORY / folder / name).read_bytes()
    expected = {
        f"{place}/{name}" for folder, place in PLACES.items() for name in names_below(REPOSITORY / folder)
    }
    (info,) = {name.split("/")[0] for name in names} - {"automoe"}
    assert info.endswith(".dist-info")
    assert sorted(name for name in names if not name.startswith(info)) == sorted(expected)
    assert "automoe/py.typed" in expected


def test_the_wheel_says_under_which_licences_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        assert metadata["License-Expression"] == "MIT AND MPL-2.0"
        for licence in ("LICENSE", "data/LICENSE.MPL-2.0"):
            assert licence in metadata.get_all("License-File")
            assert archive.read(f"{info}/licenses/{licence}") == (REPOSITORY / licence).read_bytes()


def test_the_wheel_alone_brings_no_library_of_training(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    needed: dict[str | None, set[str]] = {}
    for requirement in metadata.get_all("Requires-Dist"):
        extra = re.search(r"extra == '(\w+)'", requirement)
        name = re.match(r"[\w.-]+", requirement)
        needed.setdefault(extra and extra[1], set()).add(name[0])
    assert {"onnxruntime", "tokenizers", "safetensors"} <= needed[None]
    assert {"torch", "datasets", "sacrebleu", "lxml"} <= needed["train"]
    for extra in (None, "serve", "runtime"):
        assert not needed[extra] & needed["train"]


def test_the_source_archive_builds_the_same_wheel(wheel, tmp_path):
    archive = build(REPOSITORY, "sdist", tmp_path / "sdist")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    assert build(source, "wheel", tmp_path / "wheel").read_bytes() == wheel.read_bytes()


def test_both_ways_to_start_it_are_of_the_installed_package(installed, tmp_path):
    where = "import automoe; print(automoe.__file__)"
    found = run([sys.executable, "-c", where], installed, tmp_path).stdout.strip()
    assert Path(found).is_relative_to(installed)
    module = run([sys.executable, "-m", "automoe", "--version"], installed, tmp_path)
    script = run([str(installed / "bin" / "automoe"), "--version"], installed, tmp_path)
    assert module.stdout == script.stdout == f"automoe {__version__}\n"


def test_the_demo_is_prepared_where_there_is_no_clone(installed, tmp_path):
    before = names_below(installed)
    done = run([str(installed / "bin" / "automoe"), "prepare", "demo"], installed, tmp_path)
    assert done.returncode == 0, done.stderr
    recipe = installed / "automoe" / "builtin" / "recipes" / "demo.yaml"
    assert done.stderr.startswith(f"demo is the built-in recipe {recipe}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    read = json.loads((tmp_path / "runs" / "demo" / "corpora.json").read_text(encoding="utf-8"))
    assert read["train"]["pairs"] == 40_382  # data/README.md
    assert names_below(installed) == before


def test_an_unknown_name_lists_what_was_installed(installed, tmp_path):
    done = run([str(installed / "bin" / "automoe"), "run", "dmo"], installed, tmp_path)
    assert done.returncode == 2
    names = ", ".join(sorted(path.stem for path in (REPOSITORY / "recipes").glob("*.yaml")))
    message = "dmo: there is no file, and no built-in recipe of this name"
    assert done.stderr == f"automoe: {message}\n  - built-in recipes: {names}\n"
    assert list(tmp_path.iterdir()) == []
