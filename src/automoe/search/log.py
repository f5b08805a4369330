"""The log of a search: every evaluated candidate, one JSON object a line, and its memory.

The file is for `pandas.read_json(path, lines=True)`. Its columns are those of `LogLine`. A search
is a deterministic function of its seed, given costs and scores; so a search that was killed is run
again from its start, and finds in the log what it had evaluated.

The log knows nothing about weights, devices or bounds: whoever retrains the supernet or changes the
device starts a new file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.constraint import COSTS, MEASURED

_FIRST_BYTES = b'{"strategy":'
_MOST_PROBLEMS = 20


class LogLine(BaseModel):
    """One line of the file.

    strategy: which search evaluated it; "feasibility" is the check before a search.
    iteration: 0 is the initial population. index: counts a strategy's evaluated candidates.
    score: lower is better; empty when the candidate was not scored.
    costs: a column each; empty when not computed, as the latency of what is too large anyway.
    description: `str(architecture)`.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    strategy: str
    iteration: int
    index: int
    score: FiniteFloat | None
    latency_ms: FiniteFloat | None
    flops: FiniteFloat | None
    parameters: FiniteFloat | None
    active_parameters: FiniteFloat | None
    memory_bytes: FiniteFloat | None
    feasible: bool
    description: str
    architecture: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One evaluated candidate in the log; the fields are those of `LogLine`."""

    strategy: str
    iteration: int
    index: int
    candidate: Candidate
    feasible: bool


class CandidateLog:
    """The candidates evaluated so far, kept in the file at `path`, which need not exist yet.

    A last line without its end, left by a kill, is cut off the file: its candidate is evaluated
    again.

    Raises:
        InputError: the file cannot be read, or has a line that no search wrote.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._entries: dict[tuple[str, Architecture], Entry] = {}
        self._known: dict[Architecture, Candidate] = {}
        for entry in _read(self.path):
            self._remember(entry)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The latest entry of each strategy's candidates, in the order they were first evaluated."""
        return tuple(self._entries.values())

    def known(self, architecture: Architecture) -> Candidate:
        """All costs and the score any strategy found for `architecture`; maybe none."""
        return self._known.get(architecture, Candidate(architecture))

    def append(self, entry: Entry) -> None:
        """Write `entry` to the file before returning; nothing if the log has it already.

        Raises:
            OSError: the disk is full or gone.
            ValueError: a cost of an unknown name, or a number that is not finite.
        """
        old = self._entries.get((entry.strategy, entry.candidate.architecture))
        if old and old.candidate == entry.candidate and old.feasible == entry.feasible:
            return
        line = _line(entry).model_dump_json() + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode("utf-8"))
            file.flush()
            # A kill cannot lose what the system has. Waiting for the disk, against a loss of power, is
            # for what took long: tight constraints make many candidates that were only counted.
            if entry.candidate.score is not None or MEASURED & entry.candidate.costs.keys():
                os.fsync(file.fileno())
        self._remember(entry)

    def _remember(self, entry: Entry) -> None:
        new = entry.candidate
        old = self.known(new.architecture)
        score = old.score if new.score is None else new.score
        self._known[new.architecture] = Candidate(new.architecture, {**old.costs, **new.costs}, score)
        self._entries[entry.strategy, new.architecture] = entry


def _line(entry: Entry) -> LogLine:
    candidate = entry.candidate
    costs: dict[str, Any] = {**dict.fromkeys(COSTS), **candidate.costs}
    return LogLine(
        strategy=entry.strategy,
        iteration=entry.iteration,
        index=entry.index,
        score=candidate.score,
        feasible=entry.feasible,
        description=str(candidate.architecture),
        architecture=candidate.architecture.to_dict(),
        **costs,
    )


def _entry(line: bytes) -> Entry:
    """Raises ValueError (pydantic's ValidationError is one) or InputError for a damaged line."""
    read = LogLine.model_validate_json(line)
    costs = {name: value for name in COSTS if (value := getattr(read, name)) is not None}
    candidate = Candidate(Architecture.from_dict(read.architecture), costs, read.score)
    return Entry(read.strategy, read.iteration, read.index, candidate, read.feasible)


def _read(path: Path) -> list[Entry]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read", [error.strerror or str(error)]) from error
    *lines, tail = content.split(b"\n")
    entries: list[Entry] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(_entry(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            problems.append(f"line {number}: {where + ': ' if where else ''}{first['msg']}")
        except InputError as error:
            problems.append(f"line {number}: {error.summary}: {'; '.join(error.problems)}")
    # Only the beginning of a line of ours may be cut off; another file must not lose its end.
    if not (tail.startswith(_FIRST_BYTES) or _FIRST_BYTES.startswith(tail)):
        problems.append(f"line {len(lines) + 1}: is not the beginning of a line of this log")
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        shown = problems[:_MOST_PROBLEMS] + ([f"and {more:,} more lines"] if more > 0 else [])
        mend = "delete these lines or give the search another file; what they held is evaluated again"
        raise InputError(f"{path}: is not a search's log, or is damaged", [*shown, mend])
    if tail:
        os.truncate(path, len(content) - len(tail))
    return entries
