"""Made-up input of every kind that users hand in; each must end in a result or in one clear refusal.

A kind is a strategy of hypothesis, and a function that uses an example of it and says which end it took.
Anything else, an exception other than `InputError` or a status of 500 and more, goes through.
"""

from __future__ import annotations

import bz2
import copy
import gzip
import json
import lzma
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pyarrow
import yaml
from hypothesis import strategies as st
from pyarrow import parquet

from automoe.cost.counting import count
from automoe.data.corpus import CorpusSource, load_pairs, load_whole
from automoe.design.architecture_file import load_architecture, save_architecture
from automoe.design.space import load_space
from automoe.errors import InputError
from helpers.paths import RECIPES, TEST_DATA
from helpers.served import ARCHITECTURE
from helpers.tiny_run import run_here, write_tiny_recipe

End = Literal["result", "refused"]


@dataclass(frozen=True)
class Kind:
    """Examples, and what becomes of one."""

    examples: st.SearchStrategy[Any]
    end: Callable[[Any], End]


# Values that a file may have anywhere.

_ODD_TEXTS = [
    "",
    " ",
    "..",
    "/",
    "~",
    "~nobody/x",
    "\0",
    "a\nb",
    "no",
    "60%",
    "-5%",
    "1e9",
    "\ufeff",
    "é/🙂",
    "x" * 300,
]
_MEANT_TEXTS = ["zh-CN", "no", "ja", "bpe", "unigram", "evolution", "random", "dense", "any", "uniform"]
_MEANT_TEXTS += [
    "balanced",
    "sandwich",
    "post",
    "off",
    "largest-dense",
    "free",
    "every",
    "standard",
    "fractional",
    "bf16-mixed",
    "auto",
    "cpu",
    "50%",
]
_ODD_NUMBERS = [-1, 0, 1, 2, 3, 7, 64, 1000, 2**31, 2**63, 10**30, -0.0, 0.5, 1.5, 1e308]
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from([*_ODD_NUMBERS, float("inf"), float("-inf"), float("nan")])
    | st.integers()
    | st.floats()
    | st.sampled_from(_ODD_TEXTS)
    | st.text(max_size=10)
    | st.just(date(2026, 2, 3))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value with every key or index in it."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _near(value: Any) -> st.SearchStrategy[Any]:
    """Values that may be meant where this one stands."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32, 64, value - 1, value + 1, 2 * value])
    if isinstance(value, float):
        return st.floats(0, 1) | st.just(2 * value)
    if isinstance(value, str):
        return st.sampled_from(_MEANT_TEXTS) | st.text(max_size=5)
    if isinstance(value, list) and value:
        return st.permutations(value).map(lambda items: items[: max(1, len(items) - 1)])
    return st.just(value)


@st.composite
def changed(draw: st.DrawFn, plain: Any) -> Any:
    """A value like `plain`, in which up to three places say something else, are gone, or are added."""
    value = copy.deepcopy(plain)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        places = list(_places(value))
        if not places:
            break
        container, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(["near", "near", "near", "near", "set", "remove", "add", "repeat"]))
        if how == "near":
            container[key] = draw(_near(container[key]))
        elif how == "set":
            container[key] = draw(VALUES)
        elif how == "remove":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, draw(VALUES) if how == "add" else container[key])
        else:
            container[draw(st.text(max_size=8))] = draw(VALUES) if how == "add" else container[key]
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes like `content`, some of which are others, missing, or added; or nothing but made-up bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8")))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 2, 10])))
        more = draw(
            st.sampled_from(
                [b"", b"\t", b"\n", b"\0", b"\xff", b"[", b"{", b"&a *a", b"- ", b"'", b": ", b"\xe2\x80\xa8"]
            )
        )
        content = content[:start] + more + content[end:]
    return content


def _yaml(plain: Any) -> bytes:
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def _files(*plains: Any) -> st.SearchStrategy[bytes]:
    """The bytes of YAML files like those that say one of these."""
    well_formed = st.one_of(*(changed(plain).map(_yaml) for plain in plains))
    odd = st.sampled_from(
        [
            b"[" * 2000,
            b"{a: " * 1000,
            b"a: &a [*a]",
            b"a: " + b"9" * 5000,
            b"1: 2",
            b"? [a]\n: b",
            b"a: 2026-13-40",
        ]
    )
    return st.integers(0, 19).flatmap(
        lambda draw: odd if draw == 0 else well_formed.flatmap(damaged) if draw < 5 else well_formed
    )


@contextmanager
def _written(content: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def _end(work: Callable[[], None]) -> End:
    try:
        work()
    except InputError as error:
        if not error.summary.strip():
            raise AssertionError("a refusal that says nothing") from error
        return "refused"
    return "result"


# Recipes, spaces and architectures.


def _tiny_recipe() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_tiny_recipe(
            Path(folder), finals="{candidates: 4, dense: 1}", own_steps="{steps: 2, candidates: 6}"
        )
        return yaml.safe_load(recipe.read_text(encoding="utf-8"))


def _use_recipe(content: bytes) -> End:
    """The first stage of a run, which must know of everything that a later one would refuse."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_tiny_recipe(Path(folder))
        recipe.write_bytes(content)
        return _end(lambda: run_here(recipe, until="prepare") and None)


def _use_space(content: bytes) -> End:
    def work() -> None:
        with _written(content, "space.yaml") as path:
            space = load_space(path)
        assert space.size() >= 1
        rng = random.Random(0)
        a, b = space.sample(rng), space.sample(rng)
        assert a in space
        assert space.cross(a, b, rng) in space
        assert space.mutate(a, 0.5, rng) in space
        assert count(space.smallest()).active_parameters <= count(space.largest()).active_parameters

    return _end(work)


def _use_architecture(content: bytes) -> End:
    def work() -> None:
        with _written(content, "architecture.yaml") as path:
            architecture = load_architecture(path)
            assert count(architecture).parameters > 0
            save_architecture(architecture, path)
            assert load_architecture(path) == architecture

    return _end(work)


def _plain_files(*paths: Path) -> list[Any]:
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]


# Corpora.

_SIDES = st.text(max_size=12) | st.sampled_from(
    ["click", "öffnen", "漢字", "\u200b", "a\u2028b", "\ufeff", "x" * 3000]
)
_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
_ENCODINGS = [
    "utf-8",
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "cp1252",
]


@dataclass(frozen=True)
class CorpusExample:
    """Files by name, and how a recipe describes them."""

    files: dict[str, bytes]
    source: dict[str, Any]


@st.composite
def _encoded(draw: st.DrawFn, text: str) -> bytes:
    content = text.encode(draw(st.sampled_from(_ENCODINGS)), "replace")
    return draw(damaged(content)) if draw(st.integers(0, 3)) == 0 else content


@st.composite
def _table(draw: st.DrawFn, kind: str) -> bytes:
    rows = [["click ok", "ok klicken"], *draw(st.lists(st.lists(_SIDES, min_size=2, max_size=2), max_size=6))]
    if kind == ".parquet":
        names = draw(st.sampled_from([("source", "target")] * 3 + [("x", "y")]))
        sides = draw(st.permutations([list(column) for column in zip(*rows, strict=True)]))
        odd = [[None] * len(rows), list(range(len(rows))), [b"\xff"] * len(rows), [[1]] * len(rows)]
        columns = [draw(st.sampled_from([side] * 4 + odd)) for side in sides]
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table(dict(zip(names, columns, strict=True))), sink)
        content = sink.getvalue().to_pybytes()
        return draw(damaged(content)) if draw(st.integers(0, 3)) == 0 else content
    if kind == ".jsonl":
        named = [dict(zip(("source", "target"), row, strict=True)) for row in rows]
        lines = [json.dumps(draw(changed(row)), default=str) for row in named]
        lines += draw(st.sampled_from([[], [], [], ["[" * 10_000], ['"\\ud800"'], ["NaN"], ["9" * 5000]]))
        return draw(_encoded("\n".join(lines)))
    if kind == ".tmx":
        units = "".join(
            "<tu>"
            + "".join(
                f"<tuv xml:lang='{language}'><seg>{text}</seg></tuv>"
                for language, text in zip(("en", "de-AT"), row, strict=True)
            )
            + "</tu>"
            for row in rows
        )
        return draw(_encoded(f"<?xml version='1.0'?><tmx version='1.4'><header/><body>{units}</body></tmx>"))
    wide = [[*row, *draw(st.sampled_from([[], [], ["doc"], ["doc", "more"]]))] for row in rows]
    header = draw(st.sampled_from([[], [], [["source", "target"]]]))
    return draw(_encoded("\n".join(draw(st.sampled_from("\t\t\t,")).join(row) for row in [*header, *wide])))


@st.composite
def _corpora(draw: st.DrawFn) -> CorpusExample:
    files = {}
    source: dict[str, Any] = {}
    if draw(st.integers(0, 4)) == 0:
        lines = draw(st.lists(_SIDES, min_size=1, max_size=5))
        for side in ("source_path", "target_path"):
            name = f"{side}.txt"
            more = draw(st.sampled_from([[], [], [], ["one more"]]))
            files[name], source[side] = draw(_encoded("\n".join([*lines, *more]))), name
    else:
        kind = draw(st.sampled_from([".tsv", ".tsv", ".jsonl", ".parquet", ".tmx"]))
        name = "corpus" + draw(st.sampled_from([*[kind] * 8, kind.upper(), ".txt", ""]))
        content = draw(_table(kind))
        packed = draw(st.sampled_from([None, None, None, *_COMPRESSIONS]))
        if packed:
            content = _COMPRESSIONS[packed](content)
            name += draw(st.sampled_from([packed, packed, packed, "", ".gz", ".zst"]))
            content = draw(damaged(content)) if draw(st.integers(0, 2)) == 0 else content
        files[name], source["path"] = content, name
        columns = draw(
            st.sampled_from([*[None] * 8, (0, 1), (1, 0), (2, 5), (-1, -2), ("source", "target"), ("a", "b")])
        )
        if columns:
            source["source_column"], source["target_column"] = columns
        if kind == ".tmx" or draw(st.integers(0, 5)) == 0:
            source["source_language"], source["target_language"] = draw(
                st.sampled_from([("en", "de"), ("EN", "de-AT"), ("en", "fr"), ("", "\0")])
            )
    return CorpusExample(files, source)


def _use_corpus(example: CorpusExample) -> End:
    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in example.files.items():
                (Path(folder) / name).write_bytes(content)
            paths = {
                key: str(Path(folder) / value) if "path" in key else value
                for key, value in example.source.items()
            }
            source = CorpusSource(**paths)
            whole = load_whole(source)
            pairs, report = load_pairs(source)
        assert pairs == [whole.pairs[index] for index in whole.kept]
        assert (len(pairs), len(whole.pairs)) == (report.kept, report.read)
        for pair in pairs:
            for side in (pair.source, pair.target):
                assert side.strip()
                assert len(side.splitlines()) == 1
                side.encode("utf-8")

    return _end(work)


KINDS: dict[str, Kind] = {
    "recipes": Kind(_files(_tiny_recipe()), _use_recipe),
    "spaces": Kind(_files(*_plain_files(*sorted((RECIPES / "spaces").glob("*.yaml")))), _use_space),
    "architectures": Kind(
        _files(ARCHITECTURE.to_dict(), *_plain_files(*sorted((TEST_DATA / "hat").glob("*.yml"))[:3])),
        _use_architecture,
    ),
    "corpora": Kind(_corpora(), _use_corpus),
}
