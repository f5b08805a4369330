"""Which libraries belong to which extra: the table, `pyproject.toml`, and what the code imports agree."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import automoe
from automoe.cli.extras import EXTRAS
from helpers.paths import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES_OF: dict[str, set[str]] = {}
for module, distributions in packages_distributions().items():
    for distribution in distributions:
        MODULES_OF.setdefault(distribution.lower().replace("_", "-"), set()).add(module)


def distributions_of(requirements: list[str]) -> list[str]:
    return [re.split(r"[^\w-]", requirement)[0].lower().replace("_", "-") for requirement in requirements]


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_library_of_an_extra_is_known(extra: str) -> None:
    for distribution in distributions_of(PROJECT["optional-dependencies"][extra]):
        optional = distribution in ("httptools", "uvloop")  # uvicorn does without
        assert optional or MODULES_OF[distribution] & {*EXTRAS[extra]}


def test_the_code_imports_what_is_installed_or_named() -> None:
    bare = {
        name
        for distribution in distributions_of(PROJECT["dependencies"])
        for name in MODULES_OF[distribution]
    }
    named = {name for modules in EXTRAS.values() for name in modules}
    assert not bare & named
    known = bare | named | sys.stdlib_module_names | {"automoe", "pydantic_core", "_typeshed"}
    unknown = {}
    for path in Path(automoe.__file__).parent.rglob("*.py"):
        if "_template" not in path.parent.name:
            for name in imported(ast.parse(path.read_text(encoding="utf-8"))) - known:
                unknown[name] = str(path)
    assert unknown == {}


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names
