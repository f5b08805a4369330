"""A run's folder: whose it is, also when several processes look at it at once."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from automoe.errors import InputError
from automoe.run import folder as run_folder
from automoe.run.folder import FORMATS, RunFolder, Stage
from automoe.storage import read_json, write_json


def silent(_: str) -> None: ...


def nothing(folder: Path) -> None: ...


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


def test_a_stage_is_known_by_name_format_and_inputs_and_says_them(tmp_path):
    run = RunFolder(tmp_path, "mine", silent)
    first = run.stage("prepare", {"data.max_tokens": 9}, nothing)
    inputs = {"b": 1.0, "a": [True, None, "ü"]}
    stage = run.stage("search-x", inputs, nothing, after=[first])
    text = json.dumps(["search-x", FORMATS["search"], inputs, {"prepare": first.fingerprint}], sort_keys=True)
    assert stage.fingerprint == hashlib.sha256(text.encode()).hexdigest()
    state = read_json(tmp_path / "search-x" / "stage.json", "start over")
    assert (state["inputs"], state["after"]) == (inputs, {"prepare": first.fingerprint})
    assert (state["fingerprint"], state["finished"]) == (stage.fingerprint, True)


def killed(folder: Path) -> None:
    (folder / "half").write_text("")
    raise KeyboardInterrupt


def test_a_finished_stage_is_skipped_and_an_interrupted_one_finds_what_it_left(tmp_path):
    run = RunFolder(tmp_path, "mine", silent)
    with pytest.raises(KeyboardInterrupt):
        run.stage("search", {"a": 1}, killed)
    found: list[bool] = []
    run.stage("search", {"a": 1}, lambda folder: found.append((folder / "half").exists()))
    run.stage("search", {"a": 1}, lambda folder: found.append(False))  # done before
    assert found == [True]


def test_a_stage_of_an_earlier_version_that_noted_more_stays_until_something_else_differs(tmp_path):
    more, steps = {"training.device": "cpu"}, {"training.steps": 4}
    run = RunFolder(tmp_path, "mine", silent)
    first = run.stage("train-x", steps | more, nothing)
    behind = run.stage("evaluate-x", {}, nothing, after=[first])
    before = files(tmp_path)

    def again(changed: dict[str, int], **noted: str) -> Stage:
        noted = {f"training.{key}": value for key, value in noted.items()}
        return run.stage("train-x", changed, lambda _: pytest.fail("made again"), formerly=noted)

    assert again(steps, device="cpu") == first
    assert run.stage("evaluate-x", {}, lambda _: pytest.fail("made again"), after=[first]) == behind
    assert files(tmp_path) == before
    for changed, device, why in (
        (steps, "auto", "training.device: cpu -> auto"),
        ({"training.steps": 5}, "cpu", "training.steps: 4 -> 5"),
    ):
        with pytest.raises(InputError) as caught:
            again(changed, device=device)
        assert caught.value.problems[0] == why
        assert caught.value.problems[1].startswith("so this would start again: train-x")
    assert files(tmp_path) == before
    fresh = RunFolder(tmp_path / "fresh", "mine", silent)
    made = fresh.stage("train-x", steps, nothing, formerly=more)
    assert made == fresh.stage("train-x", steps, nothing, formerly={"training.device": "auto"})
    assert read_json(tmp_path / "fresh" / "train-x" / "stage.json", "start over")["inputs"] == steps


def test_an_interrupted_stage_that_made_nothing_yet_starts_again_unasked(tmp_path):
    run = RunFolder(tmp_path, "mine", silent)
    with pytest.raises(KeyboardInterrupt):
        run.stage("budget", {"bound": 1}, killed)
    run.stage("budget", {"bound": 2}, lambda folder: (folder / "done").touch())
    assert {path.name for path in (tmp_path / "budget").iterdir()} == {"stage.json", "done"}


@pytest.mark.parametrize(
    ("stage", "work"), [("supernet", "checkpoint-00000005.safetensors"), ("search-x", "candidates.jsonl")]
)
def test_hours_of_an_unfinished_stage_are_not_deleted_unasked(tmp_path, stage, work):
    def interrupted(folder: Path) -> None:
        (folder / work).write_text("hours")
        raise KeyboardInterrupt

    run = RunFolder(tmp_path, "mine", silent)
    with pytest.raises(KeyboardInterrupt):
        run.stage(stage, {"steps": 1}, interrupted)
    with pytest.raises(InputError, match="would start again: " + stage):
        run.stage(stage, {"steps": 2}, nothing)
    assert (tmp_path / stage / work).read_text() == "hours"


def files(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Of everything in a folder, but for its lock: which file it is, when it was written, what it holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_finished_work_of_other_inputs_is_refused_with_what_changed(tmp_path):
    run = RunFolder(tmp_path, "mine", silent)
    before = {
        "training.steps": 40,
        "space": {"encoder": {"widths": [32]}},
        "data.train": {"content": "a" * 64},
    }
    after = {
        "training.steps": 60,
        "space": {"encoder": {"widths": [32, 64]}},
        "data.train": {"content": "b" * 64},
    }
    run.stage("train-x", before, lambda folder: (folder / "model").write_text("days"))
    there = files(tmp_path)
    with pytest.raises(InputError) as caught:
        run.stage("train-x", after | {"new": True}, nothing)
    *why, start, mend = caught.value.problems
    assert why == [
        "training.steps: 40 -> 60",
        "space.encoder.widths: [32] -> [32, 64]",
        "data.train.content: aaaaaaaa... -> bbbbbbbb...",
        "new: nothing -> true",
    ]
    assert start == "so this would start again: train-x"
    assert "--overwrite" in mend
    assert "name=" in mend
    assert files(tmp_path) == there


def test_what_may_be_overwritten_starts_from_an_empty_folder_and_is_asked_once(tmp_path):
    asked: list[str] = []

    def allow(refusal: InputError) -> bool:
        asked.append(str(refusal))
        return True

    said: list[str] = []
    run = RunFolder(tmp_path, "mine", said.append, allow)
    run.stage("train-x", {"steps": 1}, lambda folder: (folder / "1").touch())
    run.stage("train-x", {"steps": 2}, lambda folder: (folder / "2").touch())
    assert {path.name for path in (tmp_path / "train-x").iterdir()} == {"stage.json", "2"}
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "train-x"}
    assert len(asked) == 1
    assert "steps: 1 -> 2" in said[-2]


def chain(run: RunFolder, made: list[str], **changed: int) -> None:
    """Stages a <- b, which leads to c, and d by itself; each has an input of its name."""

    def stage(name: str, **builds_on: object) -> Stage:
        inputs = {name: changed.get(name, 0)}
        return part.stage(f"train-{name}", inputs, lambda folder: made.append(name), **builds_on)

    part = run.part("seed-1")
    b = stage("b", after=[stage("a")])
    stage("c", led_by=[b])
    stage("d")


CHAIN = [f"seed-1/train-{name}" for name in "abcd"]


def test_all_that_cannot_stay_is_known_before_anything_is_touched(tmp_path):
    made: list[str] = []
    chain(RunFolder(tmp_path, "mine", silent), made)
    there = files(tmp_path)
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path, "mine", silent).expect({"a": 1, "b": 0, "c": 0, "d": 2}, CHAIN)
    assert caught.value.problems[:3] == (
        "a: 0 -> 1",
        "d: 0 -> 2",
        f"so this would start again: {', '.join(CHAIN)}",
    )
    assert files(tmp_path) == there

    asked: list[InputError] = []
    run = RunFolder(tmp_path, "mine", silent, lambda refusal: not asked.append(refusal))
    run.expect({"a": 1, "b": 0, "c": 0, "d": 2}, CHAIN)
    chain(run, made, a=1, d=2)
    assert len(asked) == 1
    assert made == [*"abcd", *"abd"]  # what b leads to came out the same


def test_what_does_not_change_asks_nothing(tmp_path):
    made: list[str] = []
    for _ in range(2):
        run = RunFolder(tmp_path, "mine", silent)
        run.expect({"a": 0, "b": 0, "c": 0, "d": 0, "e": 5}, CHAIN)
        chain(run, made)
    assert made == [*"abcd"]


def test_a_part_that_is_gone_and_one_that_was_made_again_count(tmp_path):
    made: list[str] = []
    chain(RunFolder(tmp_path, "mine", silent), made)
    with pytest.raises(InputError, match="seed-1/train-a: is no part of this run any more"):
        RunFolder(tmp_path, "mine", silent).expect({}, CHAIN[1:])
    run = RunFolder(tmp_path, "mine", silent, lambda refusal: True)
    run.part("seed-1").stage("train-a", {"a": 1}, nothing)
    with pytest.raises(InputError, match="seed-1/train-a: was made again since") as caught:
        RunFolder(tmp_path, "mine", silent).expect({"a": 1}, CHAIN)
    assert "so this would start again: seed-1/train-b, seed-1/train-c" in caught.value.problems


def test_stages_of_earlier_versions_are_left_alone(tmp_path):
    write_json(tmp_path / "run.json", {"recipe": "mine"})
    for name in ("prepare", "seed-1/supernet"):
        write_json(tmp_path / name / "stage.json", {"fingerprint": "0" * 64, "finished": True})
    there = files(tmp_path)
    with pytest.raises(InputError, match="an earlier version of this program") as caught:
        RunFolder(tmp_path, "mine", silent).expect({}, ["prepare", "seed-1/supernet"])
    assert "so this would start again: prepare, seed-1/supernet" in caught.value.problems
    with pytest.raises(InputError, match="an earlier version of this program"):
        RunFolder(tmp_path, "mine", silent).stage("prepare", {}, nothing)
    assert files(tmp_path) == there


def test_another_format_of_a_stage_concerns_it_and_what_builds_on_it(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, "mine", silent)
    run.stage("supernet", {}, nothing, after=[run.stage("prepare", {}, nothing)])
    run.stage("train-x", {}, nothing)
    monkeypatch.setattr(run_folder, "FORMATS", {**FORMATS, "prepare": 7})
    with pytest.raises(InputError) as caught:
        run.expect({}, ["prepare", "supernet", "train-x"])
    assert caught.value.problems[:2] == (
        "prepare: is of format 1, this program makes format 7",
        "so this would start again: prepare, supernet",
    )


def test_latencies_of_more_systems_are_completed_and_of_fewer_kept_but_nothing_is_lost_unasked(tmp_path):
    said: list[str] = []
    run = RunFolder(tmp_path, "mine", said.append)
    one, two, three = (run.stage(f"train-{name}", {}, nothing) for name in ("x", "y", "z"))
    run.stage("latency", {"runs": 9}, lambda folder: (folder / "x").touch(), after=[one])
    run.stage("latency", {"runs": 9}, lambda folder: (folder / "y").touch(), after=[one, two])
    assert said[-1] == "latency: continues"
    there = files(tmp_path)
    run.expect({"runs": 9}, ["train-x", "latency"])
    run.stage("latency", {"runs": 9}, nothing, after=[one])
    assert said[-1] == "latency: done before"
    with pytest.raises(InputError, match="train-y: is no part of this run any more"):
        run.stage("latency", {"runs": 9}, nothing, after=[one, three])
    with pytest.raises(InputError, match="runs: 9 -> 10"):
        run.stage("latency", {"runs": 10}, nothing, after=[one, two])
    assert files(tmp_path) == there
    assert {path.name for path in (tmp_path / "latency").iterdir()} == {"stage.json", "x", "y"}


def test_the_report_is_made_again_unasked(tmp_path):
    run = RunFolder(tmp_path, "mine", silent)
    run.stage("report", {"baseline.name": "x"}, nothing)
    run.stage("report", {"baseline.name": "y"}, lambda folder: (folder / "y").touch())
    assert (tmp_path / "report" / "y").exists()


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
    run.stage("search", {}, nothing)
    for seed in (1, 2):
        stage = run.part(f"seed-{seed}").stage("search", {}, lambda folder: (folder / "done").touch())
        assert (stage.folder, stage.name) == (tmp_path / f"seed-{seed}" / "search", f"seed-{seed}/search")
        assert (stage.folder / "done").exists()
    run.part("seed-1").stage("search", {}, nothing)
    assert said == [
        "search: starts",
        "seed-1/search: starts",
        "seed-2/search: starts",
        "seed-1/search: done before",
    ]


def test_a_run_is_at_work_in_one_place_only(tmp_path):
    one, two = (RunFolder(tmp_path, "mine", silent) for _ in range(2))
    for _ in range(2):
        with one.locked():
            for shared in (False, True):
                with pytest.raises(InputError, match="at work already") as caught, two.locked(shared=shared):
                    pass
            assert f"process {os.getpid()} on" in str(caught.value)
    with one.locked(shared=True), two.locked(shared=True):
        third = RunFolder(tmp_path, "mine", silent)
        with pytest.raises(InputError, match="at work already"), third.locked():
            pass


def test_of_several_processes_of_one_run_the_first_holds_the_lock(tmp_path, monkeypatch):
    one, two = (RunFolder(tmp_path, "mine", silent) for _ in range(2))
    with one.locked():
        monkeypatch.setenv("RANK", "1")
        with two.locked():
            pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    run = RunFolder(tmp_path, "mine", silent)
    program = (
        "import sys, time; from pathlib import Path; from automoe.run.lock import locked\n"
        "with locked(Path(sys.argv[1]), print): print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match=f"process {process.pid} on"), run.locked():
            pass
        process.kill()
    with run.locked():
        pass
