"""The log of a search: every evaluated candidate, one JSON object a line, and its memory.

The file is for `pandas.read_json(path, lines=True)`. Its columns are those of `LogLine`, and one for each
cost. A search is a deterministic function of its seed, given costs and scores; so a search that was killed
is run again from its start, and finds in the log what it had evaluated.

The log knows nothing about weights, devices or bounds: whoever retrains the supernet or changes the
device starts a new file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat

from automoe.design.architecture import Architecture
from automoe.errors import InputError, validate_plain
from automoe.search.candidate import Candidate
from automoe.storage import append_to_journal, read_journal

_MEND = "delete these lines or give the search another file; what they held is evaluated again"


@dataclass(frozen=True, slots=True)
class SearchName:
    """Which search this is.

    Attributes:
        system: the row of the results table that it is for; "feasibility" is the check before a search.
        strategy: how it searches: "evolution", "random"; "feasibility".
        space: where: "whole", or its "dense" part; empty in files of before there was this column.
    """

    system: str
    strategy: str
    space: str


class LogLine(BaseModel):
    """One line of the file: these columns, and one for each cost, absent or empty when not computed.

    system, strategy, space: those of `SearchName`. A line without `system` is of before there were the
    three: its `strategy` is the system.
    iteration: 0 is the initial population. index: counts a search's evaluated candidates.
    score: lower is better; empty when the candidate was not scored.
    description: `str(architecture)`.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, FiniteFloat | None]

    system: str
    strategy: str
    space: str
    iteration: int
    index: int
    score: FiniteFloat | None
    feasible: bool
    description: str
    architecture: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One evaluated candidate in the log.

    Attributes:
        search: which search evaluated it. `iteration`, `index`: when, as in `LogLine`.
        candidate: with its costs and its score. `feasible`: whether it keeps every bound.
    """

    search: SearchName
    iteration: int
    index: int
    candidate: Candidate
    feasible: bool


class CandidateLog:
    """The candidates evaluated so far, kept in the file at `path`, which need not exist yet.

    A last line without its end, left by a kill, does not count: its candidate is evaluated again.

    Raises:
        InputError: the file cannot be read, or has lines that no search wrote; they are listed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._entries: dict[tuple[str, Architecture], LogEntry] = {}
        self._known: dict[Architecture, Candidate] = {}
        for entry in read_journal(self.path, _parse, _MEND):
            self._remember(entry)

    @property
    def entries(self) -> tuple[LogEntry, ...]:
        """The latest entry of each system's candidates, in the order they were first evaluated."""
        return tuple(self._entries.values())

    def known(self, architecture: Architecture) -> Candidate:
        """All costs and the score any search found for `architecture`; maybe none."""
        return self._known.get(architecture, Candidate(architecture))

    def append(self, entry: LogEntry, *, durable: bool = True) -> None:
        """Write `entry` to the file before returning; nothing if the log has it already.

        Args:
            durable: wait until the disk has it, against a loss of power; a kill loses it in no case.

        Raises:
            InputError: the disk is full or refuses.
            ValueError: a cost with the name of another column, or a number that is not finite.
        """
        old = self._entries.get((entry.search.system, entry.candidate.architecture))
        if old and old.candidate == entry.candidate and old.feasible == entry.feasible:
            return
        append_to_journal(self.path, [_record(entry)], durable=durable)
        self._remember(entry)

    def _remember(self, entry: LogEntry) -> None:
        new = entry.candidate
        old = self.known(new.architecture)
        score = old.score if new.score is None else new.score
        self._known[new.architecture] = Candidate(new.architecture, {**old.costs, **new.costs}, score)
        self._entries[entry.search.system, new.architecture] = entry


def _record(entry: LogEntry) -> dict[str, Any]:
    candidate = entry.candidate
    if taken := LogLine.model_fields.keys() & candidate.costs.keys():
        raise ValueError(f"no cost can have the name of a column: {', '.join(sorted(taken))}")
    return {
        **asdict(entry.search),
        "iteration": entry.iteration,
        "index": entry.index,
        "score": candidate.score,
        **candidate.costs,
        "feasible": entry.feasible,
        "description": str(candidate.architecture),
        "architecture": candidate.architecture.to_dict(),
    }


def _parse(plain: Mapping[str, Any]) -> LogEntry:
    """Raises InputError for a damaged line."""
    if "system" not in plain and "strategy" in plain:
        plain = {**plain, "system": plain["strategy"], "space": ""}
    line = validate_plain(LogLine, plain, "is no line of a search's log")
    costs = {name: value for name, value in line.__pydantic_extra__.items() if value is not None}
    candidate = Candidate(_architecture(line.architecture), costs, line.score)
    search = SearchName(line.system, line.strategy, line.space)
    return LogEntry(search, line.iteration, line.index, candidate, line.feasible)


def _architecture(plain: Mapping[str, Any]) -> Architecture:
    try:
        return Architecture.from_dict(plain)
    except InputError as error:
        problems = [f"architecture.{problem}" for problem in error.problems]
        raise InputError(error.summary, problems) from error
