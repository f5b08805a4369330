"""Reading sentence pairs: TSV, JSONL and Parquet files, two parallel text files, corpora by name."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from automoe.data.normaliser import INVISIBLE, normalised
from automoe.errors import AtLeastOne, InputError, checked

MOST_PROBLEMS = 10  # listed for one file; the rest are counted
# What the count of cleaned pairs is of: characters that show nothing, control characters, the separators a
# terminal or an editor takes for a new line, and halves of surrogate pairs.
CLEANED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
    + "".join(f"{chr(first)}-{chr(last)}" for first, last in INVISIBLE)
    + "]"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A sentence, its translation, and the document they come from (empty when unknown)."""

    source: str
    target: str
    document: str = ""


@checked("this corpus cannot be found")
@dataclasses.dataclass(frozen=True, slots=True)
class CorpusSource:
    """Where pairs come from; exactly one of `path`, `source_path` + `target_path`, `dataset`.

    Args:
        path: a `.tsv`, `.jsonl` or `.parquet` file; TSV and JSONL may be compressed (`.xz`, `.gz`).
        source_column, target_column: names or positions, from 0, of the columns. A TSV file has a first
            line of names when these are names. By default 0 and 1 in a TSV file, whose third column, if
            any, is the document; `source` and `target` elsewhere.
        source_path, target_path: two text files, one sentence a line.
        dataset, config, split: a corpus that the `datasets` library knows by name, downloaded on
            first use.
        source_language, target_language: of a row that has a `translation`, as WMT's, the keys in it.

    Raises:
        InputError: none, or several, of the three ways are given; half of a pair of fields is missing.
    """

    path: str | None = None
    source_column: int | str | None = None
    target_column: int | str | None = None
    source_path: str | None = None
    target_path: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    source_language: str | None = None
    target_language: str | None = None

    def __post_init__(self) -> None:
        given = [self.path is not None, self.source_path is not None or self.target_path is not None]
        given.append(self.dataset is not None)
        problems = []
        if sum(given) != 1:
            problems.append("give exactly one of: path; source_path and target_path; dataset")
        for kind in ("path", "column", "language"):
            names = f"source_{kind}", f"target_{kind}"
            if (getattr(self, names[0]) is None) != (getattr(self, names[1]) is None):
                problems.append(f"{names[0]} and {names[1]} go together")
        if isinstance(self.source_column, str) != isinstance(self.target_column, str):
            problems.append("source_column and target_column: expected two names or two positions")
        if self.dataset is not None and self.split is None:
            problems.append("split: missing, a dataset needs it")
        if problems:
            raise InputError("this corpus cannot be found", problems)


@checked("these limits leave nothing")
@dataclasses.dataclass(frozen=True, slots=True)
class CorpusLimits:
    """Pairs beyond these are dropped and counted: the longest side in characters, and the ratio of sides."""

    max_characters: AtLeastOne = 2000
    max_length_ratio: Annotated[float, Field(ge=1)] = 9.0


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of a corpus: pairs kept, dropped by reason, and cleaned of what shows nothing."""

    kept: int
    empty: int
    too_long: int
    unequal: int
    cleaned: int


def load_pairs(source: CorpusSource, limits: CorpusLimits | None = None) -> tuple[list[Pair], LoadReport]:
    """All usable pairs of a corpus, in order, and what was dropped.

    Texts are normalised (`data/normaliser.py`): what shows nothing is no text. A pair with an empty side,
    with a side over `limits.max_characters`, or with sides of too different lengths is dropped and counted.

    Raises:
        InputError: the corpus is missing or damaged, has invalid UTF-8 or a wrong number of columns (by
            line number), its two files differ in length, or nothing usable is left.
    """
    limits = limits or CorpusLimits()
    counts = dict.fromkeys(("empty", "too_long", "unequal", "cleaned"), 0)
    pairs = []
    for raw in _raw_pairs(source):
        pair = Pair(normalised(raw.source), normalised(raw.target), raw.document)
        lengths = len(pair.source), len(pair.target)
        if min(lengths) == 0:
            counts["empty"] += 1
        elif max(lengths) > limits.max_characters:
            counts["too_long"] += 1
        # Short sides differ much by nature ("OK" against a phrase): ten characters are free.
        elif max(lengths) + 10 > limits.max_length_ratio * (min(lengths) + 10):
            counts["unequal"] += 1
        else:
            counts["cleaned"] += bool(CLEANED.search(raw.source) or CLEANED.search(raw.target))
            pairs.append(pair)
    if not pairs:
        raise InputError(f"{_name(source)}: no usable sentence pair", [f"dropped: {counts}"])
    return pairs, LoadReport(len(pairs), **counts)


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
        return _tsv(path, source)
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
            raise InputError(f"{self.path}: mend or remove these lines", [*self.listed, *more])


def _lines(path: Path, problems: _Problems) -> Iterator[tuple[int, str]]:
    """Numbered lines; only a line feed ends a line, so that odd separators cannot shift two files."""
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, start=1):
                try:
                    yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    problems.add(f"line {number}: invalid UTF-8 at byte {error.start + 1}")
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path}: cannot be read", [reason]) from error


def _tsv(path: Path, source: CorpusSource) -> Iterator[Pair]:
    problems = _Problems(path)
    lines = _lines(path, problems)
    positions: list[int] = [0, 1]
    if isinstance(source.source_column, str):
        _, header = next(lines, (1, ""))
        names = header.split("\t")
        wanted = [source.source_column, source.target_column]
        missing = [
            f"line 1: no column {name!r} (columns: {header!r})" for name in wanted if name not in names
        ]
        if missing:
            raise InputError(f"{path}: columns are missing", missing)
        positions = [names.index(str(name)) for name in wanted]
        documents = names.index("document") if "document" in names else None
    else:
        if source.source_column is not None:
            positions = [int(source.source_column), int(source.target_column or 0)]
        documents = 2 if positions == [0, 1] else None
    width = 0
    for number, line in lines:
        columns = line.split("\t")
        if not line.strip():
            yield Pair("", "")
            continue
        width = width or len(columns)
        if len(columns) != width or len(columns) <= max(positions):
            expected = max(width, max(positions) + 1)
            problems.add(f"line {number}: {len(columns)} columns, expected {expected}")
            continue
        document = columns[documents] if documents is not None and documents < width else ""
        yield Pair(columns[positions[0]], columns[positions[1]], document)
    problems.raise_any()


def _row_pair(row: Any, source: CorpusSource) -> Pair | str:
    """The pair of a named row, or what is wrong with it; a missing text (null) is an empty one."""
    if not isinstance(row, dict):
        return "expected an object with named columns"
    document = str(row.get("document") or "")
    wanted = source.source_column, source.target_column
    if wanted == (None, None):
        wanted = "source", "target"
        if source.source_language is not None and isinstance(row.get("translation"), dict):
            row, wanted = row["translation"], (source.source_language, source.target_language)
    names = list(row)
    keys = [names[column] if isinstance(column, int) and column < len(names) else column for column in wanted]
    wrong = [str(key) for key in keys if not isinstance(row.get(key, 0), str | None)]
    if wrong:
        return f"no text under {', '.join(wrong)} (columns: {', '.join(map(str, names))})"
    return Pair(row[keys[0]] or "", row[keys[1]] or "", document)


def _jsonl(path: Path, source: CorpusSource) -> Iterator[Pair]:
    problems = _Problems(path)
    for number, line in _lines(path, problems):
        if not line.strip():
            yield Pair("", "")
            continue
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
    import datasets  # takes seconds, so only where it is needed

    name = f"{source.dataset}/{source.config}"
    try:
        rows = datasets.load_dataset(source.dataset, source.config, split=source.split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{name}: the corpus cannot be loaded by name", [str(error)]) from error
    for number, row in enumerate(rows, start=1):
        pair = _row_pair(row, source)
        if isinstance(pair, str):
            raise InputError(f"{name}: has no such texts", [f"row {number}: {pair}"])
        yield pair
