"""Standard input and output: UTF-8 whatever the environment says, and one message when they fail."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from automoe.errors import InputError
from automoe.storage import MARKS, unreadable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_CHUNK_BYTES = 64 * 1024
_STANDARD_INPUT = "standard input"


class OutputLostError(Exception):
    """Standard output takes no more: its reader is gone, or its disk is full.

    Not an `OSError`, of which libraries on the way make what they like.
    """


@contextmanager
def utf8_streams() -> Iterator[None]:
    """Standard output and standard error write UTF-8; at the end what was printed has been written.

    A file name that is not text is written as the bytes it is.

    Raises:
        InputError: there is no standard output.
        OutputLostError: what was printed cannot be written, here or at any `print` within.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (as long as the process)
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    if sys.stdout is None:
        raise InputError("standard output is closed", ["send it to a file, or to /dev/null"])
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:  # else a test's own
        sys.stdout.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(sys.stdout.fileno(), "w", closefd=False)),
            encoding="utf-8",
            errors="surrogateescape",
            newline="\n",
            line_buffering=sys.stdout.line_buffering,
            write_through=sys.stdout.write_through,
        )
    try:
        yield
    finally:
        sys.stdout.flush()


class _Output(io.FileIO):
    """A file whose failure to write is an `OutputLostError`, once; what comes after it is dropped."""

    _lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self._lost:  # what buffers still hold, which Python would try again to write at its exit
            return memoryview(data).nbytes
        try:
            while (written := super().write(data)) is None:  # a pipe that somebody made non-blocking
                select.select([], [self], [])
        except OSError as error:
            self._lost = True
            raise OutputLostError(f"standard output cannot be written: {error.strerror}") from error
        return written


def lines_as_they_come(most: int) -> Iterator[list[str]]:
    """The lines of standard input, in groups: those that are there, at least one and at most `most`.

    It waits only while no whole line is there. A line ends at a line feed and nowhere else; the last one
    may lack it. The lines come without it.

    Raises:
        InputError: standard input is closed or cannot be read, or a line is not UTF-8; the lines before
            it have been yielded.
    """
    if sys.stdin is None:
        raise InputError(f"{_STANDARD_INPUT} is closed", ["send text to it, e.g. `< in.txt`"])
    before = 0
    for group in _byte_lines(sys.stdin.fileno(), most):
        lines: list[str] = []
        for number, line in enumerate(group, start=before + 1):
            try:
                lines.append(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                if lines:
                    yield lines
                marked = [name for mark, name in MARKS.items() if line.startswith(mark) and name != "utf-8"]
                encoding = marked[0].upper()[:6] if marked else "LATIN1"  # "UTF-16": the mark says which
                mend = f"convert the text first, e.g. `iconv -f {encoding} -t UTF-8`"
                raise InputError(
                    f"{_STANDARD_INPUT}, line {number}: is not UTF-8", [str(error), mend]
                ) from error
        before += len(group)
        yield lines


def _byte_lines(descriptor: int, most: int) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    begun: list[bytes] = []  # the pieces of a line whose end has not come
    while chunk := _read(descriptor):
        head, *rest = chunk.split(b"\n")
        begun.append(head)
        if rest:
            lines += [b"".join(begun), *rest[:-1]]
            begun = [rest[-1]]
        while len(lines) >= most or (lines and not _is_ready(descriptor)):
            yield lines[:most]
            del lines[:most]
    last = b"".join(begun)
    if lines or last:
        yield [*lines, last] if last else lines


def _read(descriptor: int) -> bytes:
    """What is there, after waiting until something is; nothing at the end."""
    try:
        if os.name != "nt":
            select.select([descriptor], [], [])  # somebody may have made it non-blocking
        return os.read(descriptor, _CHUNK_BYTES)
    except OSError as error:
        raise unreadable(_STANDARD_INPUT, error) from error


def _is_ready(descriptor: int) -> bool:
    """Whether a read would not wait; Windows, which cannot say so of a pipe, gives what one read gives."""
    return os.name != "nt" and bool(select.select([descriptor], [], [], 0)[0])
