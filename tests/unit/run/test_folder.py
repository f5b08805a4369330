"""A run's folder: whose it is, also when several processes look at it at once."""

import hashlib
import json
import threading
from pathlib import Path

import pytest

from automoe import __version__
from automoe.errors import InputError
from automoe.run import folder as run_folder
from automoe.run.folder import RunFolder
from automoe.storage import read_json, write_json


def silent(_: str) -> None: ...


def test_the_owner_is_written_once_and_kept(tmp_path):
    RunFolder(tmp_path / "run", "mine", silent)
    assert read_json(tmp_path / "run" / "run.json", "start over") == {"recipe": "mine"}
    RunFolder(tmp_path / "run", "mine", silent)
    with pytest.raises(InputError, match="belongs to the recipe 'mine', not 'theirs'"):
        RunFolder(tmp_path / "run", "theirs", silent)


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(InputError, match="is not the folder of a run"):
        RunFolder(tmp_path, "mine", silent)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_nobody_writes_before_all_have_looked(tmp_path, monkeypatch):
    """What stands in the folder at each meeting point of the processes."""
    seen: list[bool] = []
    monkeypatch.setattr(
        run_folder, "wait_for_all", lambda: seen.append((tmp_path / "run" / "run.json").exists())
    )
    RunFolder(tmp_path / "run", "mine", silent)
    assert seen == [False, True]


def test_a_second_process_is_not_confused_by_what_the_first_is_writing(tmp_path, monkeypatch):
    """Two processes, as threads; the second looks when the first waits, or is in the middle of writing."""
    path = tmp_path / "run"
    go, looked = threading.Event(), threading.Event()
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []

    def is_first() -> bool:
        return threading.current_thread() is first

    def wait_for_all() -> None:
        (go if is_first() else looked).set()
        barrier.wait(timeout=20)

    def write_slowly(target: Path, value: object) -> None:
        path.mkdir(exist_ok=True)
        (path / ".run.json.1.tmp").write_text("{")
        go.set()
        looked.wait(timeout=20)
        (path / ".run.json.1.tmp").unlink()
        write_json(target, value)

    def open_folder() -> None:
        try:
            if not is_first():
                assert go.wait(timeout=20)
            RunFolder(path, "mine", silent)
        except BaseException as error:
            failures.append(error)
            looked.set()
            barrier.abort()

    monkeypatch.setattr(run_folder, "wait_for_all", wait_for_all)
    monkeypatch.setattr(run_folder, "is_first_process", is_first)
    monkeypatch.setattr(run_folder, "write_json", write_slowly)
    first, second = (threading.Thread(target=open_folder) for _ in range(2))
    first.start()
    second.start()
    first.join(30)
    second.join(30)
    assert failures == []
    assert read_json(path / "run.json", "start over") == {"recipe": "mine"}


def test_a_stage_is_known_by_version_name_and_inputs(tmp_path):
    run = RunFolder(tmp_path, "mine", silent)
    inputs = [{"b": 1.0, "a": [True, None, "ü"]}, 2e-3]
    stage = run.stage("prepare", inputs, lambda folder: None)
    text = json.dumps([__version__, "prepare", inputs], sort_keys=True)
    assert stage.fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert read_json(tmp_path / "prepare" / "stage.json", "start over") == {
        "fingerprint": stage.fingerprint,
        "finished": True,
    }


def test_a_finished_stage_is_skipped_and_an_interrupted_one_finds_what_it_left(tmp_path):
    run = RunFolder(tmp_path, "mine", silent)

    def killed(folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("search", 1, killed)
    found: list[bool] = []
    run.stage("search", 1, lambda folder: found.append((folder / "half").exists()))
    run.stage("search", 1, lambda folder: found.append(False))  # done before
    assert found == [True]
    run.stage("search", 2, lambda folder: found.append((folder / "half").exists()))  # other inputs
    assert found == [True, False]


def test_the_mend_of_a_damaged_owner_does_not_cost_the_run(tmp_path: Path) -> None:
    RunFolder(tmp_path / "mine", "mine", silent)
    (tmp_path / "mine" / "run.json").write_text("")
    with pytest.raises(InputError, match=r"run\.json: is damaged") as caught:
        RunFolder(tmp_path / "mine", "mine", silent)
    assert not any("delete" in problem for problem in caught.value.problems)
    assert '{"recipe": "NAME"}' in caught.value.problems[-1]


def test_a_part_has_stages_of_its_own_and_says_whose_they_are(tmp_path: Path) -> None:
    said: list[str] = []
    run = RunFolder(tmp_path, "mine", said.append)
    run.stage("search", 1, lambda folder: None)
    for seed in (1, 2):
        stage = run.part(f"seed-{seed}").stage("search", 1, lambda folder: (folder / "done").touch())
        assert stage.folder == tmp_path / f"seed-{seed}" / "search"
        assert (stage.folder / "done").exists()
    run.part("seed-1").stage("search", 1, lambda folder: None)
    run.stage("search", 2, lambda folder: None)
    assert said == [
        "search: starts", "seed-1/search: starts", "seed-2/search: starts", "seed-1/search: done before",
        "search: starts",
    ]  # fmt: skip
