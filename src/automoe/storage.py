"""What this package reads and writes: YAML and JSON in; whole files out, or none; journals; digests."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from automoe.errors import InputError, problems_of

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)
_MOST_PROBLEMS = 20

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte-order marks, and the encodings of Unicode that they begin."""

CONVERT = "text in another encoding has to be converted, e.g. `iconv -f LATIN1 -t UTF-8`"
"""The mend for a file that is not in Unicode."""


class _NoKeyTwice(yaml.constructor.BaseConstructor):
    """Refuses a key that a mapping has twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value} is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


class _TextLoader(_NoKeyTwice, yaml.BaseLoader):
    """Every scalar is the text that the file has."""


class _Loader(_NoKeyTwice, yaml.SafeLoader):
    """YAML 1.1, but as in YAML 1.2 `2e9` and `1e-3` are numbers and `no`, the code of Norwegian, is text.

    So are `yes`, `on` and `off`; only `true` and `false` are not. `1:30` is text, too, and so is `0100`,
    which is 64 to one version and 100 to the other.
    """


_REDEFINED = tuple(f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REDEFINED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0|[1-9][\d_]*|0x[\da-fA-F_]+|0b[01_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^([-+]?((\d[\d_]*\.[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))|\.(nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def parse_yaml(text: str, *, as_text: bool = False) -> Any:
    """The value of a YAML text.

    Args:
        as_text: numbers, dates and the like are left as they are written.

    Raises:
        yaml.YAMLError: it is not YAML, or has a key twice.
    """
    try:
        return yaml.load(text, _TextLoader if as_text else _Loader)  # safe ones
    except (ValueError, KeyError, AttributeError) as error:  # of its constructors
        raise yaml.YAMLError(f"a value is not what it seems: {error}") from error
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error


def user_path(path: str | Path) -> Path:
    """A path as users write it, with `~` for their home where the shell has not put it already.

    Raises:
        InputError: it has a NUL character, which no path has.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: is no path", ["it has a NUL character"])
    return Path(os.path.expanduser(path))


def read_mapping(path: str | Path, *, as_text: bool = False) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Args:
        as_text: as in `parse_yaml`.

    Raises:
        InputError: the file is missing, is not text, is not YAML, or does not hold keys and values.
    """
    path = Path(path)
    try:
        plain = parse_yaml(read_text(path), as_text=as_text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML", [str(error)]) from error
    if not isinstance(plain, dict):
        raise InputError(f"{path}: cannot be used", [f"expected keys and values, got {plain!r:.80}"])
    return plain


def read_json(path: Path, mend: str, *, kind: type = dict) -> Any:
    """Read what `write_json` wrote.

    Args:
        mend: how to go on without the file.
        kind: what the file holds, a `dict` or a `list`.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(plain, kind):
            raise ValueError(f"expected a {kind.__name__}, got {plain!r:.80}")
        return plain
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged", [str(error), mend]) from error


def read_bytes(path: str | Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_model(path: str | Path, kind: type[ModelT], summary: str) -> ModelT:
    """A model of pydantic from the JSON file that its `model_dump_json` wrote.

    Args:
        summary: of the error, behind the file's name: what it is not, and the mend.

    Raises:
        InputError: the file is missing, damaged, or something else.
    """
    try:
        return kind.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise InputError(f"{path}: {summary}", problems_of(error, kind)) from error


def read_text(path: str | Path) -> str:
    """The text of a small file: UTF-8, or what its byte-order mark says.

    Raises:
        InputError: it cannot be read, or is no such text.
    """
    content = read_bytes(path)
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not {encoding.upper()}", [str(error), CONVERT]) from error


def unreadable(path: str | Path, error: OSError) -> InputError:
    """What to raise when the system does not let a file be read."""
    return InputError(f"{path}: cannot be read", [error.strerror or str(error)])


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn a failure to write `path`, or below it (full disk, no permission), into an InputError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        mend = "free some disk space (or mend the cause), then start again: what was finished is intact"
        raise InputError(f"{path}: cannot be written", [reason, mend]) from error


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Write a file completely or not at all.

    Yields a path beside it to write to. At the end that file is flushed to the disk and renamed, with the
    mode that the umask gives any new file; after an error nothing is left of it, and an older file stays.

    Raises:
        InputError: the folder is missing, or the disk is full or refuses.
    """
    with disk_errors(path), _renamed_at_the_end([Path(path)]) as (temporary,):
        yield temporary


@contextlib.contextmanager
def whole_files(folder: str | Path, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Write files of a folder that mean something only together, each as `whole_file` does.

    Yields by name the path to write to. Nothing happens to older files before all are flushed. Then the
    last one is what tells that the others belong together: its older file goes first, it comes last.

    Raises:
        InputError: the folder is missing, or the disk is full or refuses.
    """
    paths = [Path(folder) / name for name in names]
    with disk_errors(folder), _renamed_at_the_end(paths) as temporaries:
        yield dict(zip(names, temporaries, strict=True))


@contextlib.contextmanager
def _renamed_at_the_end(paths: Sequence[Path]) -> Iterator[list[Path]]:
    temporaries = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        for temporary in temporaries:
            temporary.touch()
        mode = temporaries[0].stat().st_mode
        yield temporaries
        for temporary in temporaries:
            temporary.chmod(mode)  # some writers make a file of their own, for its owner alone
            _flush(temporary)
        if len(paths) > 1:
            paths[-1].unlink(missing_ok=True)
            _flush(paths[-1].parent)
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
            _flush(path.parent)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def remove_torn_files(folder: Path, pattern: str) -> None:
    """Delete what kills in the middle of `whole_file` left of files of these names."""
    for path in folder.glob(f".{pattern}.*tmp"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8, as `whole_file` does; line ends stay as they are."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, as `whole_file` does; the folder is made if it is missing."""
    with disk_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def digest(value: Any) -> str:
    """The SHA-256 of a JSON value."""
    return bytes_digest(json.dumps(value, sort_keys=True).encode())


def bytes_digest(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str | None:
    """The SHA-256 of a file's content; None when there is no such file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def read_journal(path: Path, parse: Callable[[Mapping[str, Any]], T], mend: str) -> list[T]:
    """The records of a journal, a JSON object a line; none when there is no such file.

    A last line without its end is what a kill leaves: it does not count. (`append_to_journal` cuts it
    off.) Only the beginning of a record may be left out so: another file, a JSON value in one line say, is
    refused.

    Args:
        parse: a record from its object; raises ValueError (so also InputError) for a wrong one.
        mend: how to go on without the lines that are wrong.

    Raises:
        InputError: the file cannot be read, or has lines that are no such records; each is listed.
    """
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(path, error) from error
    records: list[T] = []
    problems: list[str] = []
    # JSON that is whole is no torn record, unless it is one that lacks only its line end.
    tail_is_whole = _is_json(tail)
    for number, line in enumerate([*lines, tail] if tail_is_whole else lines, start=1):
        try:
            plain = json.loads(line)
            if not isinstance(plain, dict):
                raise ValueError("is no record")
            records.append(parse(plain))
        except InputError as error:
            problems.append(f"line {number}: {'; '.join(error.problems) or error.summary}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problems.append(f"line {number}: {error}")
    if tail and not tail_is_whole and not tail.startswith(b"{"):
        problems.append(f"line {len(lines) + 1}: is not the beginning of a record")
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        shown = problems[:_MOST_PROBLEMS] + ([f"and {more:,} more lines"] if more > 0 else [])
        raise InputError(f"{path}: is damaged, or not the file of this name", [*shown, mend])
    return records[: len(lines)]


def append_to_journal(path: Path, records: Iterable[Mapping[str, Any]], *, durable: bool) -> None:
    """Append records to a journal, after cutting off what a kill left of a last line.

    Args:
        durable: wait until the disk has them; otherwise only the system has, which outlives this process.

    Raises:
        InputError: the disk is full or refuses.
        ValueError: a number is not finite.
    """
    lines = _journal_lines(records)
    with disk_errors(path), path.open("ab+") as file:
        _cut_torn_line(file)
        file.write(lines.encode("utf-8"))
        file.flush()
        if durable:
            os.fsync(file.fileno())


def write_journal(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a journal of just these records, as `whole_file` does.

    Raises:
        InputError: the disk is full or refuses.
        ValueError: a number is not finite.
    """
    write_text(path, _journal_lines(records))


def _journal_lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _cut_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    kept = end
    while kept > 0:
        start = max(0, kept - 4096)
        file.seek(start)
        found = file.read(kept - start).rfind(b"\n")
        if found >= 0:
            kept = start + found + 1
            break
        kept = start
    if kept < end:
        file.truncate(kept)
    file.seek(0, os.SEEK_END)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
