"""Reading sentence pairs: TSV, JSONL and Parquet files, two parallel text files, corpora by name."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import json
import lzma
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from automoe.errors import InputError

MOST_PROBLEMS = 10  # listed for one file; the rest are counted


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A sentence, its translation, and the document they come from (empty when unknown)."""

    source: str
    target: str
    document: str = ""


@dataclasses.dataclass(frozen=True)
class CorpusSource:
    """Where pairs come from; exactly one of `path`, `source_path` + `target_path`, `dataset`.

    Args:
        path: a `.tsv` (source, target, optional document; no header), `.jsonl` or `.parquet` file; TSV
            and JSONL may be compressed (`.xz`, `.gz`).
        source_column, target_column: keys of a JSONL or Parquet row.
        source_path, target_path: two text files, one sentence a line.
        dataset, config, split: a corpus that the `datasets` library knows by name, downloaded on
            first use, whose rows have a `translation` of `source_language` and `target_language`.

    Raises:
        InputError: none, or several, of the three ways are given.
    """

    path: str | None = None
    source_column: str = "source"
    target_column: str = "target"
    source_path: str | None = None
    target_path: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    source_language: str | None = None
    target_language: str | None = None

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        given = [self.path is not None, self.source_path is not None or self.target_path is not None]
        given.append(self.dataset is not None)
        problems = []
        if sum(given) != 1:
            problems.append("give exactly one of: path; source_path and target_path; dataset")
        if (self.source_path is None) != (self.target_path is None):
            problems.append("source_path and target_path go together")
        if self.dataset is not None:
            names = ("split", "source_language", "target_language")
            problems += [f"{name}: missing, a dataset needs it" for name in names if not getattr(self, name)]
        if problems:
            raise InputError("this corpus cannot be found", problems)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Pairs beyond these are dropped and counted: the longest side in characters, and the ratio of sides."""

    max_characters: int = 2000
    max_length_ratio: float = 9.0

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of a corpus: pairs kept, dropped by reason, and cleaned of control characters."""

    kept: int
    empty: int
    too_long: int
    unequal: int
    cleaned: int


def load_pairs(source: CorpusSource, limits: Limits | None = None) -> tuple[list[Pair], LoadReport]:
    """All usable pairs of a corpus, in order, and what was dropped.

    White space and control characters become single spaces; a pair with an empty side, with a side over
    `limits.max_characters`, or with sides of too different lengths is dropped and counted.

    Raises:
        InputError: the corpus is missing or damaged, has invalid UTF-8 or a wrong number of columns (by
            line number), its two files differ in length, or nothing usable is left.
    """
    limits = limits or Limits()
    counts = dict.fromkeys(("empty", "too_long", "unequal", "cleaned"), 0)
    pairs = []
    for raw in _raw_pairs(source):
        pair = Pair(_clean(raw.source), _clean(raw.target), raw.document)
        lengths = len(pair.source), len(pair.target)
        if min(lengths) == 0:
            counts["empty"] += 1
        elif max(lengths) > limits.max_characters:
            counts["too_long"] += 1
        # Short sides differ much by nature ("OK" against a phrase): ten characters are free.
        elif max(lengths) + 10 > limits.max_length_ratio * (min(lengths) + 10):
            counts["unequal"] += 1
        else:
            counts["cleaned"] += any(_is_control(c) for c in raw.source + raw.target)
            pairs.append(pair)
    if not pairs:
        raise InputError(f"{_name(source)}: no usable sentence pair", [f"dropped: {counts}"])
    return pairs, LoadReport(len(pairs), **counts)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in "\t\n\r"


def _clean(text: str) -> str:
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return " ".join(text.split())


def _name(source: CorpusSource) -> str:
    return source.path or source.source_path or f"{source.dataset}/{source.config}"


def _raw_pairs(source: CorpusSource) -> Iterator[Pair]:
    if source.dataset is not None:
        return _named(source)
    if source.source_path is not None and source.target_path is not None:
        return _parallel(Path(source.source_path), Path(source.target_path))
    assert source.path is not None
    path = Path(source.path)
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".xz", ".gz")]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".tsv":
        return _tsv(path)
    if kind == ".jsonl":
        return _jsonl(path, source)
    if kind == ".parquet":
        return _parquet(path, source)
    raise InputError(f"{path}: unknown kind of file", ["expected .tsv, .jsonl or .parquet (.xz, .gz)"])


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".xz":
        return lzma.open(path)
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


class _Problems:
    """Collects line problems of one file; raises them together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listed: list[str] = []
        self.count = 0

    def add(self, problem: str) -> None:
        self.count += 1
        if len(self.listed) < MOST_PROBLEMS:
            self.listed.append(problem)

    def raise_any(self) -> None:
        if self.count:
            more = [f"and {self.count - len(self.listed)} more"] if self.count > len(self.listed) else []
            raise InputError(f"{self.path}: cannot be used", [*self.listed, *more])


def _lines(path: Path, problems: _Problems) -> Iterator[tuple[int, str]]:
    """Numbered lines; only a line feed ends a line, so that odd separators cannot shift two files."""
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, start=1):
                try:
                    yield number, raw.decode("utf-8").rstrip("\n")
                except UnicodeDecodeError as error:
                    problems.add(f"line {number}: invalid UTF-8 at byte {error.start + 1}")
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path}: cannot be read", [reason]) from error


def _tsv(path: Path) -> Iterator[Pair]:
    problems = _Problems(path)
    for number, line in _lines(path, problems):
        columns = line.split("\t")
        if len(columns) in (2, 3):
            yield Pair(*columns)
        elif line.strip():
            problems.add(f"line {number}: {len(columns)} columns, expected source, target[, document]")
        else:
            yield Pair("", "")
    problems.raise_any()


def _row_pair(row: Any, source: CorpusSource) -> Pair | str:
    """The pair of a JSONL or Parquet row, or what is wrong with it."""
    names = (source.source_column, source.target_column)
    if not isinstance(row, dict):
        return f"expected an object with {' and '.join(names)}"
    wrong = [name for name in names if not isinstance(row.get(name), str)]
    if wrong:
        return f"no text under {', '.join(wrong)} (columns: {', '.join(map(str, row))})"
    return Pair(row[names[0]], row[names[1]], str(row.get("document", "")))


def _jsonl(path: Path, source: CorpusSource) -> Iterator[Pair]:
    problems = _Problems(path)
    for number, line in _lines(path, problems):
        try:
            pair = _row_pair(json.loads(line), source)
        except ValueError as error:
            pair = f"is not JSON ({error})"
        if isinstance(pair, str):
            problems.add(f"line {number}: {pair}")
        else:
            yield pair
    problems.raise_any()


def _parquet(path: Path, source: CorpusSource) -> Iterator[Pair]:
    from pyarrow import ArrowException, parquet

    problems = _Problems(path)
    try:
        rows: Iterable[dict[str, Any]] = itertools.chain.from_iterable(
            batch.to_pylist() for batch in parquet.ParquetFile(path).iter_batches()
        )
        for number, row in enumerate(rows, start=1):
            pair = _row_pair(row, source)
            if isinstance(pair, str):
                problems.add(f"row {number}: {pair}")
            else:
                yield pair
    except (OSError, ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet", [str(error)]) from error
    problems.raise_any()


def _parallel(source_path: Path, target_path: Path) -> Iterator[Pair]:
    sides = []
    for path in (source_path, target_path):
        problems = _Problems(path)
        sides.append([line for _, line in _lines(path, problems)])
        problems.raise_any()
    if len(sides[0]) != len(sides[1]):
        lengths = [f"{source_path}: {len(sides[0])} lines", f"{target_path}: {len(sides[1])} lines"]
        raise InputError("source and target differ in length", lengths)
    yield from map(Pair, *sides)


def _named(source: CorpusSource) -> Iterator[Pair]:
    from datasets import load_dataset

    name = f"{source.dataset}/{source.config}"
    try:
        rows = load_dataset(source.dataset, source.config, split=source.split)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: the corpus cannot be loaded by name", [str(error)]) from error
    for row in rows:
        translation = row["translation"]
        yield Pair(translation[source.source_language], translation[source.target_language])
