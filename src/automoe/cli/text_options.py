"""What the options of `automoe init` say of the text: what contradicts itself, and the corpora they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Literal

from automoe.data.corpus import CorpusSource

# Of each set the ways to give it, and the fields of two sides, of which none means something alone.
_WAYS = {
    "text": (("source", "target"), ("corpus",), ("dataset",)),
    "validation set": (("valid",), ("valid_source", "valid_target")),
    "test set": (("test",), ("test_source", "test_target")),
}
_SIDES = (
    ("source", "target"),
    ("source_column", "target_column"),
    ("valid_source", "valid_target"),
    ("test_source", "test_target"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """The options of the text, each under its own name; None is one that was not given."""

    source: str | None = None
    target: str | None = None
    corpus: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    source_column: str | None = None
    target_column: str | None = None
    valid: str | None = None
    test: str | None = None
    valid_source: str | None = None
    valid_target: str | None = None
    test_source: str | None = None
    test_target: str | None = None

    def problems(self) -> Iterator[str]:
        """What is missing, given twice, or without any effect, each naming the options it is of."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        yield from (f"{_option(name)}: is empty" for name, value in values.items() if value == "")
        for name, ways in _WAYS.items():
            given = [options for way in ways if (options := self._given(*way))]
            if len(given) > 1:
                yield f"{', '.join(chain(*given))}: give the {name} in one way, not in {len(given)}"
        for sides in _SIDES:
            if len(given_sides := self._given(*sides)) == 1:
                (other,) = {*map(_option, sides)} - {*given_sides}
                yield f"{given_sides[0]}: needs {other}"
        if not self._given("source", "target", "corpus", "dataset"):
            yield "give the text: --source and --target, or --corpus, or --dataset"
        if self.dataset is None:
            yield from (
                f"{option}: has no effect without --dataset" for option in self._given("config", "split")
            )
        columns = self._columns()
        if columns and not self._has_columns():
            why = "no effect: two text files and TMX have no columns, and no other text is given"
            yield f"{', '.join(map(_option, columns))}: {why}"
        elif len(columns) == 2 and len({*map(type, columns.values())}) == 2:
            yield f"{', '.join(map(_option, columns))}: expected two names or two positions"

    def corpus_of(
        self, part: Literal["corpus", "valid", "test"], languages: tuple[str, str]
    ) -> CorpusSource | None:
        """The text itself (`corpus`) or a set of its own; None where it is not given.

        Raises:
            InputError: there are `problems`.
        """
        side = "" if part == "corpus" else f"{part}_"
        source, target = getattr(self, f"{side}source"), getattr(self, f"{side}target")
        if source is not None or target is not None:
            return CorpusSource(source_path=source, target_path=target)
        shared = dict(zip(("source_language", "target_language"), languages, strict=True))
        given: str | None = getattr(self, part)
        split = self.split or "train" if part == "corpus" else given
        if self.dataset is not None and split is not None:
            names = {"dataset": self.dataset, "config": self.config, "split": split}
            return CorpusSource(**names, **shared, **self._columns())
        return None if given is None else CorpusSource(path=given, **shared, **self._columns())

    def _given(self, *names: str) -> list[str]:
        """The options of these fields that were given."""
        return [_option(name) for name in names if getattr(self, name) is not None]

    def _columns(self) -> Mapping[str, Any]:
        given = {name: getattr(self, name) for name in ("source_column", "target_column")}
        return {name: int(t) if t.isdecimal() else t for name, t in given.items() if t is not None}

    def _has_columns(self) -> bool:
        """Whether a text that is given has columns to choose from."""
        files = (self.corpus, self.valid, self.test)
        return self.dataset is not None or any(
            file is not None and not CorpusSource(path=file).is_tmx for file in files
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
