"""Standard input in groups of lines: what is there, and no waiting for more."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automoe.cli.streams import lines_as_they_come
from automoe.errors import InputError


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a pipe; its other end."""
    read, write = os.pipe()
    with os.fdopen(read) as standard_input:
        monkeypatch.setattr(sys, "stdin", standard_input)
        yield write


def test_a_group_is_what_is_there(writer: int) -> None:
    groups = lines_as_they_come(10)
    os.write(writer, b"a\nb\nc")
    assert next(groups) == ["a", "b"]  # without waiting for the end of c
    os.write(writer, b"d\n")
    assert next(groups) == ["cd"]
    os.write(writer, b"\n\n")
    assert next(groups) == ["", ""]
    os.write(writer, b"last")
    os.close(writer)
    assert list(groups) == [["last"]]


def test_what_waits_comes_in_full_groups(writer: int) -> None:
    os.write(writer, b"".join(b"%d\n" % number for number in range(25)))
    os.close(writer)
    groups = list(lines_as_they_come(10))
    assert [len(group) for group in groups] == [10, 10, 5]
    assert [line for group in groups for line in group] == [str(number) for number in range(25)]


def test_a_file_comes_in_full_groups_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{number} " * (number % 90) for number in range(5000)]  # more than one read takes
    (tmp_path / "text").write_text("\n".join(lines))
    with (tmp_path / "text").open() as text:
        monkeypatch.setattr(sys, "stdin", text)
        groups = list(lines_as_they_come(1024))
    assert [len(group) for group in groups] == [1024, 1024, 1024, 1024, 904]
    assert [line for group in groups for line in group] == lines


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=30)


@given(lines=st.lists(text, max_size=20), last=text, size=st.integers(1, 50), most=st.integers(1, 5))
def test_lines_are_those_between_line_feeds(lines: list[str], last: str, size: int, most: int) -> None:
    content = "".join([*(f"{line}\n" for line in lines), last]).encode()
    read, write = os.pipe()
    with os.fdopen(read) as standard_input, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", standard_input)
        groups, found = lines_as_they_come(most), []
        for start in range(0, len(content), size):
            os.write(write, content[start : start + size])
            whole = content[: start + size].count(b"\n")
            while len(found) < whole:  # every whole line can be had before more is written
                group = next(groups)
                assert 1 <= len(group) <= most
                found += group
            assert len(found) == whole
        os.close(write)
        assert [*found, *(line for group in groups for line in group)] == [*lines, *([last] if last else [])]


def test_nothing_is_no_group(writer: int) -> None:
    os.close(writer)
    assert list(lines_as_they_come(10)) == []


def test_a_pipe_that_was_made_non_blocking_is_waited_for(writer: int) -> None:
    os.set_blocking(sys.stdin.fileno(), False)
    os.write(writer, b"a\n")
    groups = lines_as_they_come(10)
    assert next(groups) == ["a"]
    later = threading.Timer(0.1, os.write, [writer, b"b\n"])
    later.start()
    assert next(groups) == ["b"]
    later.join()
    os.close(writer)
    assert list(groups) == []


def test_a_wrong_line_is_numbered_over_all_groups_and_those_before_it_come_first(writer: int) -> None:
    os.write(writer, b"a\nb\nc\nd\n\xe9\nf\n\xff\n")
    os.close(writer)
    groups = lines_as_they_come(3)
    assert [next(groups), next(groups)] == [["a", "b", "c"], ["d"]]
    with pytest.raises(InputError, match="standard input, line 5: is not UTF-8"):
        next(groups)


@pytest.mark.parametrize(
    ("encoding", "named"),
    [("utf-16", "UTF-16"), ("utf-32", "UTF-32"), ("latin-1", "LATIN1"), ("utf-8-sig", None)],
)
def test_the_mend_is_the_encoding_that_a_mark_tells(writer: int, encoding: str, named: str | None) -> None:
    """`iconv` can do what the message says, and its output is then read."""
    text = "ÿ é\n".encode(encoding)
    os.write(writer, text)
    os.close(writer)
    if named is None:
        assert list(lines_as_they_come(3)) == [["\ufeffÿ é"]]
        return
    with pytest.raises(InputError, match=f"iconv -f {named} -t UTF-8`"):
        next(lines_as_they_come(3))
    assert text.decode(named) == "ÿ é\n"


def test_a_closed_or_unreadable_input_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        next(lines_as_they_come(3))
    with (tmp_path / "out").open("w") as only_written:
        monkeypatch.setattr(sys, "stdin", only_written)
        with pytest.raises(InputError, match="standard input: cannot be read"):
            next(lines_as_they_come(3))
