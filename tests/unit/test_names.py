"""Nothing in the package is called like something else in it."""

import ast
from collections import defaultdict
from pathlib import Path

import automoe
from helpers.paths import REPOSITORY

ROOT = Path(automoe.__file__).parent
# Templates are copied into an export, where their names are other programs' conventions.
MODULES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not any(part.endswith("_template") for part in path.relative_to(ROOT).parts)
]


def repeated(names: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: places for name, places in names.items() if len(places) > 1}


def test_no_two_modules_have_one_name():
    places = defaultdict(list)
    for path in MODULES:
        if path.stem not in ("__init__", "__main__"):
            places[path.stem].append(str(path.relative_to(ROOT)))
    assert len(places) > 50
    assert repeated(places) == {}


def test_no_two_public_classes_have_one_name():
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 50
    assert repeated(places) == {}


def test_every_module_is_in_the_reference():
    pages = (REPOSITORY / "docs" / "reference").glob("*.md")
    told = {line for page in pages for line in page.read_text(encoding="utf-8").splitlines()}
    names = [path.relative_to(ROOT.parent).with_suffix("") for path in MODULES if path.stem[:2] != "__"]
    assert [name for name in names if f"::: {'.'.join(name.parts)}" not in told] == []
