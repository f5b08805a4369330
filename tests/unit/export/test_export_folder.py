"""An export's folder: whole or not at all, in place of an earlier one of its kind and of nothing else."""

import errno
import os
from pathlib import Path

import pytest

from automoe.errors import InputError
from automoe.export.export_folder import write_folder
from automoe.storage import write_json, write_text

MARK = ("format", "mine-1")


def write(version: str):
    def write_version(folder: Path) -> None:
        write_json(folder / "config.json", {"format": "mine-1", "version": version})

    return write_version


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_an_earlier_export_is_replaced_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", MARK, write("1"))
    write_text(tmp_path / "out" / "rest", "of version 1")
    write_folder(tmp_path / "out", MARK, write("2"))
    (text,) = content(tmp_path / "out").values()
    assert '"version": "2"' in text
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("config", [None, "", "[]", '{"format": "mine-2"}', '{"mark": "mine-1"}'])
def test_files_of_something_else_are_not_replaced(tmp_path: Path, config: str | None) -> None:
    (tmp_path / "out").mkdir()
    write_text(tmp_path / "out" / ("notes" if config is None else "config.json"), config or "")
    before = content(tmp_path / "out")
    with pytest.raises(InputError, match="would be overwritten"):
        write_folder(tmp_path / "out", MARK, write("1"))
    assert content(tmp_path / "out") == before


def test_a_full_disk_names_the_folder_that_was_asked_for_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "out", MARK, write("1"))
    before = content(tmp_path / "out")

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_by_hand(folder: Path) -> None:
        full(folder)

    monkeypatch.setattr(os, "fsync", full)
    for write_new, name in ((write("2"), "config.json"), (write_by_hand, "")):
        with pytest.raises(InputError) as caught:
            write_folder(tmp_path / "out", MARK, write_new)
        assert caught.value.summary == f"{tmp_path / 'out' / name}: cannot be written"
        assert caught.value.problems[0] == os.strerror(errno.ENOSPC)
        assert "free some disk space" in caught.value.problems[1]
        assert content(tmp_path / "out") == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_stop_between_the_two_renames_brings_the_earlier_export_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "out", MARK, write("1"))
    before = content(tmp_path / "out")
    rename = Path.rename

    def stopped(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", MARK, write("2"))
    assert content(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_folder_one_is_in_and_those_around_it_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for name in (".", "..", "../../a/b", str(tmp_path / "a" / "b")):
        with pytest.raises(InputError, match="is the folder you are in"):
            write_folder(Path(name), MARK, write("1"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b"]


def test_a_folder_inside_an_earlier_export_is_somebodys(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", MARK, write("1"))
    (tmp_path / "out" / "__pycache__").mkdir()
    write_folder(tmp_path / "out", MARK, write("2"))  # which Python makes
    for name in (".git", "backup"):
        (tmp_path / "out" / name).mkdir()
    with pytest.raises(InputError) as caught:
        write_folder(tmp_path / "out", MARK, write("3"))
    assert ".git, backup" in caught.value.problems[0]
    assert '"version": "2"' in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize(
    "name",
    ["file", "file/out", "file/a/out", "link", "x" * 300, "x" * 250, f"{'x' * 300}/out", "/proc/a/out"],
)
def test_a_place_where_no_folder_can_be_made_is_named_and_left_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError) as caught:
        write_folder(tmp_path / name, MARK, write("1"))
    assert str(tmp_path / name) in caught.value.summary
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: Path) -> list[Path]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(InputError) as caught:
        write_folder(tmp_path / "out", MARK, write("1"))
    assert caught.value.problems[0] == os.strerror(errno.EACCES)


def test_folders_made_on_the_way_are_gone_when_nothing_could_be_written(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write_text(folder / "half", "of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_folder(tmp_path / "there" / "a" / "b" / "out", MARK, fail)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["there"]
    write_folder(tmp_path / "there" / "a" / "b" / "out", MARK, write("1"))
    assert [path.name for path in (tmp_path / "there" / "a" / "b" / "out").iterdir()] == ["config.json"]
