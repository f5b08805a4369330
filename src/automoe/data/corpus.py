"""Reading sentence pairs: TSV, JSONL, Parquet and TMX files, two parallel text files, corpora by name."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from automoe.data.corpus_rows import (
    Columns,
    Row,
    UnusedColumns,
    dataset_rows,
    jsonl_rows,
    parquet_rows,
    tsv_rows,
)
from automoe.data.normaliser import INVISIBLE, normalised
from automoe.data.text_file import LineProblems, kind_of, numbered_lines
from automoe.errors import AtLeastOne, InputError, checked
from automoe.storage import user_path

_TMX = ".tmx"
MOST_SHOWN = 10  # unused columns that are told by name
# Control characters, the separators a terminal or an editor takes for a new line, and halves of surrogate
# pairs, which JSON can spell and UTF-8 cannot.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# What the count of cleaned pairs is of: these, and characters that show nothing.
CLEANED = re.compile(
    f"{CONTROL.pattern}|[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in INVISIBLE) + "]"
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
        path: a `.tsv`, `.jsonl`, `.parquet` or `.tmx` file. All but Parquet may be compressed (`.gz`, `.xz`,
            `.bz2`, `.zst`); text is UTF-8, UTF-16 or UTF-32. `~` is the user's home, as in `source_path`.
        source_column, target_column: names or positions, from 0, of the columns; elsewhere than in a TSV
            file, `a.b` is the key `b` of the object `a`. A TSV file has a first line of names when these are
            names. By default 0 and 1 in a TSV file, whose third column, if any, is the document; `source`
            and `target` elsewhere.
        source_path, target_path: two text files, one sentence a line.
        dataset, config, split: a corpus that the `datasets` library knows by name, downloaded on
            first use.
        source_language, target_language: of a row that has a `translation`, as WMT's, and no `source` or
            `target`, the keys in it; of a TMX file, the languages to take from it.

    Raises:
        InputError: none, or several, of the three ways are given; half of a pair of fields is missing; both
            sides are the same; a field means nothing where it is.
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
            source, target = (getattr(self, name) for name in names)
            if (source is None) != (target is None):
                problems.append(f"{names[0]} and {names[1]} go together")
            elif source is not None and source == target and kind != "language":
                problems.append(f"{names[0]} and {names[1]}: both are {source!r}")
        if isinstance(self.source_column, str) != isinstance(self.target_column, str):
            problems.append("source_column and target_column: expected two names or two positions")
        if self.source_path is not None and self.source_column is not None:
            problems.append("source_column, target_column: two text files have no columns")
        if self.dataset is None:
            problems += [
                f"{name}: means nothing without a dataset"
                for name in ("config", "split")
                if getattr(self, name) is not None
            ]
        problems += [
            f"{side}_column: expected a name or a position from 0, got {column}"
            for side, column in (("source", self.source_column), ("target", self.target_column))
            if isinstance(column, int) and column < 0
        ]
        if self.dataset is not None and self.split is None:
            problems.append("split: missing, a dataset needs it")
        if problems:
            raise InputError("this corpus cannot be found", problems)

    @property
    def columns(self) -> Columns:
        """Where the texts are in a row."""
        texts = languages = None
        if self.source_column is not None and self.target_column is not None:
            texts = self.source_column, self.target_column
        if self.source_language is not None and self.target_language is not None:
            languages = self.source_language, self.target_language
        return Columns(texts, languages)

    @property
    def is_tmx(self) -> bool:
        """Whether it is a file of texts in several languages, two of which are to be named."""
        return self.path is not None and kind_of(Path(self.path)) == _TMX


@checked("these limits leave nothing")
@dataclasses.dataclass(frozen=True, slots=True)
class CorpusLimits:
    """Pairs beyond these are dropped and counted: the longest side in characters, and the ratio of sides."""

    max_characters: AtLeastOne = 2000
    max_length_ratio: Annotated[float, Field(ge=1)] = 9.0


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of a corpus: pairs kept, dropped by reason, and cleaned of what shows nothing.

    Attributes:
        kept: pairs that are used. `cleaned`: of these, those that had characters which show nothing.
        empty: with an empty side. `too_long`, `unequal`: beyond `CorpusLimits`.
        too_many_tokens: with a side of more tokens than may be trained on.
        unused: the columns that nothing was read from.
    """

    kept: int
    empty: int
    too_long: int
    unequal: int
    cleaned: int
    too_many_tokens: int = 0
    unused: tuple[str, ...] = ()

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> LoadReport:
        """The report whose `dataclasses.asdict` was written as JSON."""
        return LoadReport(**{**plain, "unused": tuple(plain.get("unused", ()))})

    @property
    def read(self) -> int:
        """All pairs of the corpus."""
        return self.kept + self.empty + self.too_long + self.unequal + self.too_many_tokens

    def __str__(self) -> str:
        reasons = {
            "with an empty side": self.empty,
            "over limits.max_characters": self.too_long,
            "over limits.max_length_ratio": self.unequal,
            "over max_tokens": self.too_many_tokens,
        }
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        return f"{self.kept:,} of {self.read:,} pairs" + (f" (dropped: {dropped})" if dropped else "")

    @property
    def not_used(self) -> str | None:
        """One phrase with the columns that are not used; None when all are."""
        if not self.unused:
            return None
        named, more = self.unused[:MOST_SHOWN], len(self.unused) - MOST_SHOWN
        return f"not used: {', '.join(named)}" + (f" and {more} more" if more > 0 else "")


@dataclasses.dataclass(frozen=True)
class WholeCorpus:
    """Every pair of a corpus, those included that are of no use; line k of each list is its line k.

    A line is a row of a table, or a translation unit; the first line of a TSV file that names its columns
    is none.

    Attributes:
        pairs: cleaned. `references`: their targets as the corpus spells them, but for control characters and
            line breaks: a score is against these.
        kept: the indices of the pairs that are of use. `report`: why the others are not.
    """

    pairs: list[Pair]
    references: list[str]
    kept: list[int]
    report: LoadReport


def load_pairs(source: CorpusSource, limits: CorpusLimits | None = None) -> tuple[list[Pair], LoadReport]:
    """All usable pairs of a corpus, in order, and what was dropped.

    Texts are normalised (`data/normaliser.py`): what shows nothing is no text. A pair with an empty side,
    with a side over `limits.max_characters`, or with sides of too different lengths is dropped and counted.

    Raises:
        InputError: the corpus is missing or damaged, has invalid UTF-8 or a wrong number of columns (by
            line number), or several that may be meant; its two files differ in length, or nothing usable is
            left.
    """
    counts: Counter[str] = Counter()
    unused = UnusedColumns()
    pairs = [pair for _, pair, fate in _judged(source, limits, counts, unused) if fate == "kept"]
    return pairs, _report(source, counts, unused)


def load_whole(source: CorpusSource, limits: CorpusLimits | None = None) -> WholeCorpus:
    """All pairs of a corpus, in order, and which of them `load_pairs` returns.

    Raises:
        InputError: as `load_pairs`.
    """
    counts: Counter[str] = Counter()
    unused = UnusedColumns()
    pairs, references, kept = [], [], []
    for index, (raw, pair, fate) in enumerate(_judged(source, limits, counts, unused)):
        pairs.append(pair)
        references.append(" ".join(CONTROL.sub(" ", raw.target).splitlines()))
        if fate == "kept":
            kept.append(index)
    return WholeCorpus(pairs, references, kept, _report(source, counts, unused))


def _judged(
    source: CorpusSource, limits: CorpusLimits | None, counts: Counter[str], unused: UnusedColumns
) -> Iterator[tuple[Row, Pair, str]]:
    """Each pair as it is and cleaned, and the field of `LoadReport` that it is counted in."""
    limits = limits or CorpusLimits()
    for raw in _rows(source, unused):
        pair = Pair(normalised(raw.source), normalised(raw.target), raw.document)
        lengths = len(pair.source), len(pair.target)
        if min(lengths) == 0:
            fate = "empty"
        elif max(lengths) > limits.max_characters:
            fate = "too_long"
        # Short sides differ much by nature ("OK" against a phrase): ten characters are free.
        elif max(lengths) + 10 > limits.max_length_ratio * (min(lengths) + 10):
            fate = "unequal"
        else:
            fate = "kept"
            counts["cleaned"] += bool(CLEANED.search(raw.source) or CLEANED.search(raw.target))
        counts[fate] += 1
        yield raw, pair, fate


def _report(source: CorpusSource, counts: Counter[str], unused: UnusedColumns) -> LoadReport:
    counted = {name: counts[name] for name in ("kept", "empty", "too_long", "unequal", "cleaned")}
    report = LoadReport(**counted, unused=unused.names)
    if not report.kept:
        raise InputError(f"{_name(source)}: no usable sentence pair", [str(report)])
    return report


def _name(source: CorpusSource) -> str:
    return source.path or source.source_path or f"{source.dataset}/{source.config}"


def _rows(source: CorpusSource, unused: UnusedColumns) -> Iterator[Row]:
    if source.dataset is not None:
        return _named(source, unused)
    if source.source_path is not None and source.target_path is not None:
        return _parallel(user_path(source.source_path), user_path(source.target_path))
    assert source.path is not None
    path = user_path(source.path)
    kind = kind_of(path)
    if kind == ".tsv":
        return tsv_rows(path, source.columns, unused)
    if kind == ".jsonl":
        return jsonl_rows(path, source.columns, unused)
    if kind == ".parquet":
        return parquet_rows(path, source.columns, unused)
    if kind == _TMX:
        return _tmx(path, source)
    expected = "expected .tsv, .jsonl, .parquet or .tmx (compressed: .gz, .xz, .bz2, .zst behind it)"
    raise InputError(f"{path}: unknown kind of file", [expected])


def _tmx(path: Path, source: CorpusSource) -> Iterator[Row]:
    if source.source_language is None or source.target_language is None:
        missing = "source_language, target_language: missing, a TMX file needs them"
        raise InputError(f"{path}: holds several languages", [missing])
    from automoe.data.tmx import tmx_texts  # needs lxml, which is not there where nothing is trained

    for texts in tmx_texts(path, source.source_language, source.target_language):
        yield Row(*texts)


def _parallel(source_path: Path, target_path: Path) -> Iterator[Row]:
    sides = []
    for path in (source_path, target_path):
        problems = LineProblems(path)
        sides.append([line for _, line in numbered_lines(path, problems)])
        problems.raise_any()
    if len(sides[0]) != len(sides[1]):
        lengths = [f"{source_path}: {len(sides[0])} lines", f"{target_path}: {len(sides[1])} lines"]
        raise InputError("source and target differ in length", lengths)
    yield from map(Row, *sides)


def _named(source: CorpusSource, unused: UnusedColumns) -> Iterator[Row]:
    import datasets  # takes seconds, so only where it is needed

    name = f"{source.dataset}/{source.config}"
    assert source.dataset is not None
    try:
        rows = datasets.load_dataset(str(user_path(source.dataset)), source.config, split=source.split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"{name}: the corpus cannot be loaded by name", [str(error)]) from error
    return dataset_rows(name, rows, source.columns, unused)
