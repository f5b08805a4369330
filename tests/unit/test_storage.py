"""Files: written whole or not at all, with the mode of the umask; journals that a kill may cut anywhere."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from automoe.errors import InputError
from automoe.storage import (
    append_to_journal,
    bytes_digest,
    digest,
    disk_errors,
    file_digest,
    parse_yaml,
    read_journal,
    read_json,
    whole_file,
    whole_files,
    write_journal,
    write_json,
    write_text,
)
from helpers.small_disk import small_disk

RECORDS = [{"step": 1, "loss": 0.5}, {"step": 2, "text": "ü\n}{"}, {"step": 3, "nested": {"a": [1, 2]}}]


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def not_root(tmp_path):
    """Run as a user whom permissions bind; skipped where that cannot be."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    os.chown(tmp_path, 65534, 65534)
    os.seteuid(65534)
    yield
    os.seteuid(0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_tensor(path: Path) -> None:
    save_file({"x": torch.zeros(3)}, path)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "write", [write_tensor, lambda path: path.write_text("new")], ids=["tensors", "text"]
)
def test_a_file_gets_the_mode_of_the_umask(tmp_path, umask, write, old):
    path = tmp_path / "a.file"
    if old:
        path.write_text("old")
        path.chmod(0o600)
    with whole_file(path) as temporary:
        write(temporary)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert names(tmp_path) == ["a.file"]


def fail_after_half(path: Path, failure: type[BaseException]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("half")
        raise failure


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ZeroDivisionError])
def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(tmp_path, failure):
    path = tmp_path / "a.txt"
    for old in (None, "old"):
        if old is not None:
            path.write_text(old)
        with pytest.raises(failure):
            fail_after_half(path, failure)
        assert names(tmp_path) == ([] if old is None else ["a.txt"])
        assert old is None or path.read_text() == old


def test_the_file_is_not_there_before_it_is_whole(tmp_path):
    with whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "half"


def test_line_ends_and_letters_stay_as_they_are(tmp_path):
    write_text(tmp_path / "a.txt", "ü\r\n\n\r")
    assert (tmp_path / "a.txt").read_bytes() == "ü\r\n\n\r".encode()
    write_json(tmp_path / "new" / "folder" / "a.json", {"ü": [1.5, None]})
    assert json.loads((tmp_path / "new" / "folder" / "a.json").read_text("utf-8")) == {"ü": [1.5, None]}


@pytest.fixture
def full_disk(tmp_path):
    with small_disk(tmp_path, "64k") as folder:
        yield folder


def test_a_full_disk_is_one_input_error_and_the_old_file_stays(full_disk):
    write_text(full_disk / "a.txt", "old")
    write_text(full_disk / "a.jsonl", '{"step": 0}\n')
    for write in (
        lambda: write_text(full_disk / "a.txt", "x" * 100_000),
        lambda: append_to_journal(full_disk / "a.jsonl", [{"text": "x" * 100_000}], durable=True),
    ):
        with pytest.raises(InputError, match=r"a\.\w+: cannot be written") as caught:
            write()
        assert caught.value.problems[0] == os.strerror(errno.ENOSPC)
        assert names(full_disk) == ["a.jsonl", "a.txt"]
    assert (full_disk / "a.txt").read_text() == "old"
    assert read_journal(full_disk / "a.jsonl", dict, "") == [{"step": 0}]
    append_to_journal(full_disk / "a.jsonl", [{"step": 1}], durable=False)
    assert read_journal(full_disk / "a.jsonl", dict, "") == [{"step": 0}, {"step": 1}]


def test_a_missing_permission_is_one_input_error(tmp_path, not_root):
    tmp_path.chmod(0o500)
    for write in (
        lambda: write_text(tmp_path / "a", "x"),
        lambda: write_json(tmp_path / "folder" / "a", 1),
        lambda: append_to_journal(tmp_path / "a", [{}], durable=False),
        lambda: write_journal(tmp_path / "a", [{}]),
    ):
        with pytest.raises(InputError, match="cannot be written") as caught:
            write()
        assert caught.value.problems[0] == os.strerror(errno.EACCES)
    tmp_path.chmod(0o700)
    assert names(tmp_path) == []


def test_a_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_an_input_error_passes_through(tmp_path):
    with pytest.raises(InputError, match=r"^mine$"), disk_errors(tmp_path):
        raise InputError("mine")


def test_a_journal_cut_at_any_byte_has_the_whole_lines_and_goes_on(tmp_path):
    path = tmp_path / "a.jsonl"
    append_to_journal(path, RECORDS, durable=True)
    content = path.read_bytes()
    assert content.count(b"\n") == len(RECORDS)
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = RECORDS[: content[:length].count(b"\n")]
        assert read_journal(path, dict, "") == whole
        append_to_journal(path, [{"new": length}], durable=False)
        assert read_journal(path, dict, "") == [*whole, {"new": length}]


def test_a_torn_line_longer_than_a_block_is_cut_off_too(tmp_path):
    path = tmp_path / "a.jsonl"
    write_journal(path, RECORDS)
    with path.open("a") as file:
        file.write('{"text": "' + "x" * 20_000)
    append_to_journal(path, [{"step": 4}], durable=False)
    assert read_journal(path, dict, "") == [*RECORDS, {"step": 4}]


def test_a_missing_journal_has_no_records(tmp_path):
    assert read_journal(tmp_path / "a.jsonl", dict, "") == []


@pytest.mark.parametrize("content", [b"a photograph", b"\xff\xd8\xff", b"[1]\n", b"{]\n", b"\n"])
def test_another_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged, or not the file of this name") as caught:
        read_journal(path, dict, "delete it")
    assert caught.value.problems[-1] == "delete it"
    assert path.read_bytes() == content


def test_every_wrong_line_is_named(tmp_path):
    def parse(plain):
        if plain["n"] > 2:
            raise InputError("too many", ["n: at most 2"])
        return plain["n"]

    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": 3}\n{"m": 1}\n{"n": 2}\n"n"\n{"n"')
    with pytest.raises(InputError) as caught:
        read_journal(path, parse, "mend it")
    assert caught.value.problems == (
        "line 2: n: at most 2", "line 3: 'n'", "line 5: is no record", "mend it",
    )  # fmt: skip


def test_very_many_wrong_lines_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("x\n" * 1025)
    with pytest.raises(InputError) as caught:
        read_journal(path, dict, "mend it")
    assert caught.value.problems[-2:] == ("and 1,005 more lines", "mend it")


def test_a_number_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        append_to_journal(tmp_path / "a.jsonl", [{"loss": float("nan")}], durable=False)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_journal(tmp_path / "a.jsonl", [{"loss": float("inf")}])
    assert read_journal(tmp_path / "a.jsonl", dict, "") == []


@pytest.mark.parametrize("content", ['{"colour": "red"}', '{"step": 1}\n{"colour": "red"}'])
def test_whole_json_that_is_no_record_is_refused_even_without_a_line_end(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=f"line {content.count(chr(10)) + 1}: 'step'"):
        read_journal(path, lambda plain: plain["step"], "")


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_files_that_belong_together_stay_when_one_cannot_be_flushed(tmp_path, monkeypatch, failing):
    order = ("weights", "words", "mark")
    old = dict.fromkeys(order, "old")
    for name in order:
        write_text(tmp_path / name, "old")
    flush, flushed = os.fsync, []

    def fail(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == failing + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    def write() -> None:
        with whole_files(tmp_path, order) as files:
            for path in files.values():
                path.write_text("new")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(InputError, match="cannot be written"):
            write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old
    write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(order, "new")


def test_the_last_of_several_files_is_only_there_beside_its_own(tmp_path, monkeypatch):
    order = ("weights", "words", "mark")
    for name in order:
        write_text(tmp_path / name, "old")
    replace, seen = Path.replace, []

    def watched(self: Path, target: Path) -> Path:
        seen.append({path.name: path.read_text() for path in tmp_path.iterdir() if path.name in order})
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    with whole_files(tmp_path, order) as files:
        for path in files.values():
            path.write_text("new")
    assert len(seen) == 3
    assert not any("mark" in files for files in seen)
    assert seen[-1] == {"weights": "new", "words": "new"}


def test_a_damaged_file_says_how_to_go_on(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(InputError, match="is damaged") as caught:
        read_json(path, "ask")
    assert caught.value.problems[-1] == "ask"


def test_the_digest_of_a_file_that_cannot_be_read_is_bad_input(tmp_path, monkeypatch):
    path = tmp_path / "corpus.tsv"
    path.write_text("abc")
    assert file_digest(path) == bytes_digest(b"abc")
    assert file_digest(tmp_path / "absent") is None
    assert file_digest(tmp_path) is None

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"corpus\.tsv: cannot be read"):
        file_digest(path)


def test_digests_are_sha_256():
    content = b"abc"
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    assert bytes_digest(content) == expected


def test_a_digest_knows_no_order_of_keys():
    assert digest({"a": 1, "b": [2.0, "ü"]}) == digest({"b": [2.0, "ü"], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.0})


@pytest.mark.parametrize("text", ["no", "No", "NO", "yes", "on", "off", "Off", "y", "n", "nope"])
def test_only_true_and_false_of_yaml_are_no_text(text):
    assert parse_yaml(f"a: {text}\n{text}: [{text}]") == {"a": text, text: [text]}
    assert parse_yaml("[true, True, TRUE, false, False, FALSE]") == [True] * 3 + [False] * 3
    assert parse_yaml("[null, ~, 12, 1.5, 'true']") == [None, None, 12, 1.5, "true"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-3", 0.002),
        ("2e9", 2e9),
        (".5e+1", 5.0),
        ("-1E2", -100.0),
        ("1.5", 1.5),
        ("e3", "e3"),
        ("2e", "2e"),
    ],
)
def test_numbers_of_yaml(text, value):
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x: {a: 1, b: 2, a: 1}", "x: [{a: 1, 'a': 2}]"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_key_twice_is_refused_rather_than_the_first_one_forgotten(text, as_text):
    with pytest.raises(yaml.YAMLError, match="the key a is there twice"):
        parse_yaml(text, as_text=as_text)


def test_text_stays_as_it_is_written_where_it_is_asked_for():
    text = "a: [3072_1024, 0x10, 1e3, 2024-01-01, no, ~, '3072']"
    assert parse_yaml(text, as_text=True) == {
        "a": ["3072_1024", "0x10", "1e3", "2024-01-01", "no", "~", "3072"]
    }


@pytest.mark.parametrize("text", ["[1]", "3", "null", '"text"', "{"])
def test_json_of_another_kind_is_damaged(tmp_path, text):
    path = tmp_path / "stage.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is damaged") as caught:
        read_json(path, "start over")
    assert caught.value.problems[-1] == "start over"
