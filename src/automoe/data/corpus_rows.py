"""The rows of a corpus with columns: TSV, JSONL and Parquet files, and corpora that `datasets` knows.

A row has a source, a target and perhaps a document. What else it has is metadata, which does no harm and
is remembered by name, so that the user can be told; what may be either text is refused.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from automoe.data.text_file import LineProblems, numbered_lines
from automoe.errors import InputError

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch

_QUOTED = re.compile(r'"(?:[^"]|"")*"')  # a cell as CSV quotes it
# A cell that a CSV writer need not quote where it quotes every text.
_NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:inf(inity)?|nan)|True|False"
)
MOST_NAMED = 100  # columns that are remembered: more are the values of something, not its names
_DOCUMENT, _TRANSLATION, _TEXTS = "document", "translation", ("source", "target")


class Row(NamedTuple):
    """The texts of one row as they are, and the document they come from (empty when unknown)."""

    source: str
    target: str
    document: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold the texts, as `CorpusSource` says it.

    Attributes:
        texts: source and target, by name or by position; None where that goes without saying.
        languages: the keys of source and target in a `translation`; None where none are said.
    """

    texts: tuple[int | str, int | str] | None = None
    languages: tuple[str, str] | None = None


class UnusedColumns:
    """The columns of one corpus that nothing was read from, each once."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def add(self, names: Iterable[str]) -> None:
        """Remember these, but not more than `MOST_NAMED`."""
        for name in names:
            if name not in self._names and len(self._names) < MOST_NAMED:
                self._names[name] = None

    @property
    def names(self) -> tuple[str, ...]:
        """In the order they were met."""
        return tuple(self._names)


def tsv_rows(path: Path, columns: Columns, unused: UnusedColumns) -> Iterator[Row]:
    """The rows of a TSV file; its first line names the columns when the texts are given by name.

    Quotation marks are text, unless all of them are those of a CSV writer.

    Raises:
        InputError: a column is missing, or there twice; lines are no text or have another number of columns;
            the first line names source and target, or their languages, and no columns are given.
    """
    problems = LineProblems(path)
    lines = _tsv_lines(path, problems)
    names: list[str] = []
    places = [0, 1, 2]
    if columns.texts is not None and isinstance(columns.texts[0], str):
        _, header = next(lines, (1, [""]))
        names = [name.strip() for name in header]
        places = _named_places(path, names, [str(name).strip() for name in columns.texts])
    elif columns.texts not in (None, (0, 1)):
        assert columns.texts is not None
        places = [int(place) for place in columns.texts]
    source, target, *document = places
    least = max(source, target) + 1
    width = 0
    for number, cells in lines:
        if not any(map(str.strip, cells)):
            yield Row("", "")
            continue
        if not width:
            width = len(cells)
            _refuse_names(path, number, cells, columns)
            others = (place for place in range(width) if place not in places)
            unused.add((p < len(names) and names[p]) or f"column {p} (from 0)" for p in others)
        if len(cells) != width or width < least:
            problems.add(f"line {number}: {len(cells)} columns, expected {max(width, least)}")
            continue
        yield Row(cells[source], cells[target], *(cells[place] for place in document if place < width))
    problems.raise_any()


def _tsv_lines(path: Path, problems: LineProblems) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line, with its number."""
    is_quoted = _is_quoted(path)
    for number, line in numbered_lines(path, problems):
        cells = line.split("\t")
        if is_quoted:
            cells = [cell[1:-1].replace('""', '"') if cell.startswith('"') else cell for cell in cells]
        yield number, cells


def _is_quoted(path: Path) -> bool:
    """Whether all cells with a quotation mark are quoted as in CSV, and either one must be or all texts are.

    All texts are where two columns at least are quoted throughout, and cells without are numbers.
    A file with other marks is known by the first of these, nearly always; one without any is read once more.
    """
    one_must_be, others_are_numbers = False, True
    quoted_columns: set[int] | None = None
    for _, line in numbered_lines(path, LineProblems(path)):
        if not line.strip():
            continue
        cells = line.split("\t")
        marked = {place for place, cell in enumerate(cells) if '"' in cell}
        if not all(_QUOTED.fullmatch(cells[place]) for place in marked):
            return False
        one_must_be = one_must_be or any('"' in cell[1:-1] for cell in cells)
        others = [cell for place, cell in enumerate(cells) if place not in marked]
        others_are_numbers = others_are_numbers and all(map(_NUMBER.fullmatch, others))
        quoted_columns = marked if quoted_columns is None else quoted_columns & marked
    return one_must_be or (others_are_numbers and quoted_columns is not None and len(quoted_columns) > 1)


def _refuse_names(path: Path, number: int, cells: Sequence[str], columns: Columns) -> None:
    """Refuse a first line with the names of columns, which would be taken for a pair."""
    first = [cell.strip() for cell in cells]
    for names in (_TEXTS, columns.languages):
        found = [
            next((name for name in first if name.lower() == wanted.lower()), None) for wanted in names or ()
        ]
        if columns.texts is None and found and None not in found:
            mend = f"say source_column: {found[0]}, target_column: {found[1]}; or remove the line"
            raise InputError(f"{path}: line {number} names the columns", [mend])


def _named_places(path: Path, names: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Where source, target and, if there is one, document are in a first line of names."""
    missing = [
        f"line 1: no column {text!r} (columns: {', '.join(names)})" for text in texts if text not in names
    ]
    if missing:
        raise InputError(f"{path}: columns are missing", missing)
    wanted = [*texts, *([_DOCUMENT] if _DOCUMENT in names else [])]
    twice = [
        f"line 1: {names.count(name)} columns are called {name!r}" for name in wanted if names.count(name) > 1
    ]
    if twice:
        raise InputError(f"{path}: which column is meant cannot be told", twice)
    return [names.index(name) for name in wanted]


def jsonl_rows(path: Path, columns: Columns, unused: UnusedColumns) -> Iterator[Row]:
    """The rows of a file with a JSON object a line; an empty line has empty texts.

    Raises:
        InputError: as `named_row`; lines are no JSON objects, or lack a text.
    """
    problems = LineProblems(path)
    twice: set[str] = set()

    def remember_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            twice.update(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return row

    decoder = json.JSONDecoder(object_pairs_hook=remember_twice)
    is_by_position = columns.texts is not None and not all(isinstance(text, str) for text in columns.texts)
    for number, line in numbered_lines(path, problems):
        line = line.lstrip("\ufeff")  # the mark of a file that was appended
        if not line.strip():
            yield Row("", "")
            continue
        twice.clear()
        try:
            plain = decoder.decode(line)
        except (ValueError, RecursionError) as error:
            problems.add(f"line {number}: is not JSON ({error})")
            continue
        # By the first object that has as many: keys have no order.
        if is_by_position and isinstance(plain, dict) and len(plain) > max(map(int, columns.texts or ())):
            columns = replace(columns, texts=_text_keys(plain, columns, f"{path}: line {number}"))
            is_by_position = False
        row = named_row(plain, columns, unused, f"{path}: line {number}", twice)
        if isinstance(row, str):
            problems.add(f"line {number}: {row}")
        else:
            yield row
    problems.raise_any()


def parquet_rows(path: Path, columns: Columns, unused: UnusedColumns) -> Iterator[Row]:
    """The rows of a Parquet file.

    Raises:
        InputError: as `named_row`; it cannot be read, or rows lack a text.
    """
    from pyarrow import ArrowException, parquet

    problems = LineProblems(path)
    try:
        file = parquet.ParquetFile(path)
        names = Counter(file.schema_arrow.names)
        twice = {name for name, count in names.items() if count > 1}
        rows = itertools.chain.from_iterable(map(_parquet_cells, file.iter_batches()))
        for number, plain in enumerate(rows, start=1):
            row = named_row(plain, columns, unused, f"{path}: row {number}", twice)
            if isinstance(row, str):
                problems.add(f"row {number}: {row}")
            else:
                yield row
    except InputError:
        raise
    except (OSError, ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read as Parquet", [str(error)]) from error
    problems.raise_any()


def _parquet_cells(batch: RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a part of a file.

    A number or a time that is no document is read as 0, since Python may not be able to hold it.
    """
    from pyarrow import types

    def cells(name: str, column: Array[Any]) -> list[Any]:
        is_number = types.is_primitive(column.type) or types.is_decimal(column.type)
        if is_number and name != _DOCUMENT and column.null_count < len(column):
            return [0] * len(column)
        plain: list[Any] = column.to_pylist()
        return plain

    names = batch.schema.names
    columns = [cells(name, column) for name, column in zip(names, batch.columns, strict=True)]
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def dataset_rows(
    name: str, loaded: Iterable[Mapping[str, Any]], columns: Columns, unused: UnusedColumns
) -> Iterator[Row]:
    """The rows of a corpus that `datasets` has loaded; `name` is the corpus's, for errors.

    Raises:
        InputError: as `named_row`; a row lacks a text.
    """
    for number, plain in enumerate(loaded, start=1):
        row = named_row(plain, columns, unused, f"{name}: row {number}")
        if isinstance(row, str):
            raise InputError(f"{name}: has no such texts", [f"row {number}: {row}"])
        yield row


def named_row(
    plain: Any, columns: Columns, unused: UnusedColumns, place: str, twice: Set[str] = frozenset()
) -> Row | str:
    """The row of an object with named columns, or what is wrong with it; a text that is null is an empty one.

    Args:
        unused: is told of the columns that are not used, those within a `translation` as `translation.fr`.
        place: where the object is, for errors. `twice`: names that it has more than once.

    Raises:
        InputError: several columns may be what is asked for, or one is asked for twice.
    """
    if not isinstance(plain, dict):
        return "expected an object with named columns"
    keys = _text_keys(plain, columns, place)
    cells = _cells(plain, {key.partition(".")[0] for key in keys if key not in plain})
    doubtful = [key for key in (*keys, _DOCUMENT) if not twice.isdisjoint(key.split("."))] if twice else []
    if doubtful:
        raise InputError(f"{place}: says twice what {', '.join(doubtful)} is", ["keep one of them"])
    wrong = [key for key in keys if not isinstance(cells.get(key, 0), str | None)]
    if wrong:
        return f"no text under {', '.join(wrong)} (columns: {', '.join(cells)})"
    unused.add(name for name in cells if name not in keys and name != _DOCUMENT)
    document = plain.get(_DOCUMENT)
    return Row(cells[keys[0]] or "", cells[keys[1]] or "", "" if document is None else str(document))


def _text_keys(plain: Mapping[str, Any], columns: Columns, place: str) -> tuple[str, str]:
    """The names of source and target; `a.b` is `b` within `a`."""
    if columns.texts is not None:
        names = list(plain)
        source, target = (
            names[text] if isinstance(text, int) and text < len(names) else str(text)
            for text in columns.texts
        )
        return source, target
    if not isinstance(plain.get(_TRANSLATION), dict):
        return _TEXTS
    source, target = columns.languages or ("SOURCE", "TARGET")
    if source == target:
        raise InputError(f"{place}: both sides would be the same text", [f"both languages are {source!r}"])
    within = f"{_TRANSLATION}.{source}", f"{_TRANSLATION}.{target}"
    if beside := [text for text in _TEXTS if isinstance(plain.get(text), str)]:
        ways = (f"source_column: {one}, target_column: {other}" for one, other in (_TEXTS, within))
        raise InputError(
            f"{place}: has a {_TRANSLATION} and {' and '.join(beside)}, and either may be meant",
            [f"name the columns, as {', or '.join(ways)}"],
        )
    return within if columns.languages else _TEXTS


def _cells(plain: Mapping[str, Any], opened: Collection[str]) -> Mapping[str, Any]:
    """An object's values by name; of objects within it that are opened, each value by itself."""
    if not any(isinstance(plain.get(name), dict) for name in opened):
        return plain
    found: dict[str, Any] = {}
    for name, value in plain.items():
        if name in opened and isinstance(value, dict):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    return found
