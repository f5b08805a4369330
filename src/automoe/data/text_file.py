"""Text files as people have them: the lines of one that may be compressed, in any encoding of Unicode."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from automoe.errors import InputError
from automoe.storage import CONVERT, MARKS, unreadable

MOST_PROBLEMS = 10  # listed for one file; the rest are counted
_HEAD_BYTES = 65536  # from which the encoding is told
# Shares of characters that no text should have: above the first UTF-8 is doubted, above the second another
# encoding is not believed.
_MANY_ODD = 1 / 50
_MOST_ODD = 1 / 8
_TAR_PLACE = slice(257, 262)  # in the header of a tar archive's first file


class _Compression(NamedTuple):
    """How a kind of compressed file begins, and what opens it."""

    begins: re.Pattern[bytes]
    opened: Callable[[BinaryIO], io.BufferedIOBase]


def _zstandard(file: BinaryIO) -> io.BufferedIOBase:
    import pyarrow  # a tenth of a second, so only where it is needed; Python's own begins with 3.14

    return io.BufferedReader(pyarrow.input_stream(file, compression="zstd"))


_COMPRESSIONS = {
    ".gz": _Compression(re.compile(rb"\x1f\x8b"), lambda file: gzip.GzipFile(fileobj=file)),
    ".xz": _Compression(re.compile(rb"\xfd7zXZ\0"), lzma.LZMAFile),
    ".bz2": _Compression(re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2File),
    ".zst": _Compression(re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _zstandard),
}


class LineProblems:
    """Collects the problems of one file's lines; raises them together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listed: list[str] = []
        self.count = 0
        self.mend: str | None = None

    def add(self, problem: str, mend: str | None = None) -> None:
        """Remember a problem, which names its line, and what mends it, where mending the line may not."""
        self.count += 1
        self.mend = self.mend or mend
        if len(self.listed) < MOST_PROBLEMS:
            self.listed.append(problem)

    def raise_any(self) -> None:
        """Raise an InputError of all problems, if there are any."""
        if self.count:
            more = [f"and {self.count - len(self.listed)} more"] if self.count > len(self.listed) else []
            more += [self.mend] if self.mend else []
            raise InputError(f"{self.path}: mend or remove these lines", [*self.listed, *more])


def kind_of(path: Path) -> str:
    """The last suffix before those of compression, in lower case: `.tsv` of `a.en-de.TSV.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file, decompressed where its first bytes say how.

    Raises:
        InputError: the file cannot be read, is damaged, or is named after a compression that it has not.
    """
    try:
        with path.open("rb") as file:
            head = file.read(10)
            file.seek(0)
            found = next((c for c in _COMPRESSIONS.values() if c.begins.match(head)), None)
            if found:
                with found.opened(file) as decompressed:
                    yield decompressed
            elif path.suffix.lower() in _COMPRESSIONS:
                raise InputError(f"{path}: cannot be read", [f"is no {path.suffix.lower()} file"])
            else:
                yield file
    except OSError as error:
        raise unreadable(path, error) from error
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read", [str(error)]) from error


def numbered_lines(path: Path, problems: LineProblems) -> Iterator[tuple[int, str]]:
    """Each line with its number, from 1, without its end and without a byte-order mark.

    Only a line feed ends a line, so that other separators cannot shift two files against each other.
    UTF-8, UTF-16 and UTF-32 are told apart, with a byte-order mark and without.

    Args:
        problems: are told of lines that are no text.

    Raises:
        InputError: as `opened`; it is an archive or another file of no text; more lines end in a carriage
            return alone than in a line feed.
    """
    with opened(path) as file:
        head = file.read(_HEAD_BYTES)
    encoding = _encoding(head)
    _refuse_what_is_no_text(path, head, encoding)
    _refuse_carriage_returns(path, head.decode(encoding, "replace"))
    with opened(path) as file:
        if encoding != "utf-8":
            yield from _decoded(file, encoding, problems)
            return
        for number, raw in enumerate(file, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                problems.add(f"line {number}: invalid UTF-8 at byte {error.start + 1}", CONVERT)


def _decoded(file: io.BufferedIOBase, encoding: str, problems: LineProblems) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with io.TextIOWrapper(file, encoding, newline="\n") as text:  # type: ignore[type-var]
            for number, line in enumerate(text, start=1):
                yield number, (line.removeprefix("\ufeff") if number == 1 else line).rstrip("\r\n")
    except UnicodeDecodeError as error:
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        where = f"line {number + 1} or after it"  # text is decoded in larger parts
        problems.add(f"{where}: invalid {name} ({error.reason}); convert the file to UTF-8")


def _refuse_what_is_no_text(path: Path, head: bytes, encoding: str) -> None:
    """Archives, office documents and the like have zero bytes and are not valid UTF-8.

    Raises:
        InputError: it is such a file.
    """
    if head[_TAR_PLACE].startswith(b"ustar") and b"\0" in head[: _TAR_PLACE.start]:  # not of "ajustar"
        raise InputError(f"{path}: cannot be read", ["is a tar archive; unpack it first"])
    if encoding != "utf-8" or b"\0" not in head:
        return
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        what = "is no text but an archive, a document or another binary file, or in another encoding; "
        what += "unpack or convert it first"
        raise InputError(f"{path}: cannot be read", [what]) from error


def _refuse_carriage_returns(path: Path, head: str) -> None:
    """A file whose lines end in carriage returns, as on old Macs, would be one long line.

    Raises:
        InputError: it is such a file, perhaps behind a few lines of another one.
    """
    alone = re.sub(r"\r+\n", "\n", head).rstrip("\r\n").count("\r")
    if alone > head.count("\n"):
        mend = "convert it, e.g. `tr '\\r' '\\n'`"
        raise InputError(f"{path}: cannot be read", [f"its lines end in a carriage return alone; {mend}"])


def _encoding(head: bytes) -> str:
    """The encoding of a text, of which these are the first bytes."""
    for mark, encoding in MARKS.items():
        if head.startswith(mark):
            return encoding
    if sum(byte < 32 and byte not in b"\t\n\r" for byte in head) <= _MANY_ODD * len(head):
        return "utf-8"
    # In the wrong byte order most letters are letters of another script, but spaces and line feeds are not.
    spaces = {encoding: _spaces(head, encoding) for encoding in set(MARKS.values()) - {"utf-8"}}
    likely = max(sorted(spaces), key=spaces.__getitem__)
    return likely if spaces[likely] else "utf-8"


def _spaces(head: bytes, encoding: str) -> int:
    """How many spaces, tabs and line feeds there are in this encoding; none where it cannot be that."""
    text = head.decode(encoding, "replace")
    odd = sum(unicodedata.category(c) in ("Cc", "Cn", "Co") and c not in "\t\n\r" for c in text)
    is_likely = odd + text.count("\ufffd") <= _MOST_ODD * len(text)
    return sum(map(text.count, " \t\n")) if is_likely else 0
