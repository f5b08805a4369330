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
