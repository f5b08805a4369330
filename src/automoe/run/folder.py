"""A run's folder: one folder a stage, skipped when finished and its inputs are unchanged.

A stage's `stage.json` says what it was made from, by name, so that a change can be told. A stage that was
interrupted finds what it left and continues. One whose inputs changed starts from an empty folder, but when
there is finished work in it, or a training's, not before that was allowed.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from automoe.errors import InputError
from automoe.processes import is_first_process, wait_for_all
from automoe.run.changes import differences
from automoe.run.lock import locked
from automoe.storage import digest, disk_errors, read_json, write_json

FORMATS: Mapping[str, int] = {
    "prepare": 1,
    "profile": 1,
    "budget": 1,
    "supernet": 1,
    "search": 2,
    "finals": 1,
    "train": 2,
    "distil": 1,
    "evaluate": 1,
    "latency": 1,
    "throughput": 1,
    "report": 2,
    "choice": 1,
}
"""By kind of stage, the number of what it makes.

It is raised when the same inputs would now give something else, or what later stages read otherwise. The
version of the program is no input: a new one may change nothing of what was made.
"""

ADDED: Mapping[str, tuple[str, Any]] = {"latency.shortlist": ("latency.beam_size", 0)}
"""Inputs that earlier versions did not have, each with another that the same stages had then, and the value
that it has by default, by which these stages were made."""

GROWING = ("budget", "latency", "throughput")
"""Kinds of stages that look at each of several systems: completed for more of them, kept for fewer."""

MayOverwrite: TypeAlias = Callable[[InputError], bool]
"""Told what would be lost and why: whether it may be."""

_NAMELESS = "an earlier version of this program, which did not note what from, made these stages"


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder, the hash of its inputs, and its name in the run, as `seed-1/supernet`."""

    folder: Path
    fingerprint: str
    name: str


def never(refusal: InputError) -> bool:
    """Nothing may be lost."""
    return False


def read_stage_json(path: Path, *, kind: type = dict) -> Any:
    """Read what a stage wrote with `write_json`.

    Args:
        kind: what the file holds, a `dict` or a `list`.

    Raises:
        InputError: the file is missing or damaged.
    """
    return read_json(path, f"delete {path.parent}, then that stage runs again", kind=kind)


class RunFolder:
    """`runs/NAME`, which belongs to one recipe name.

    Args:
        path: created when missing.
        recipe_name: whose run this is.
        say: hears one line a stage.
        may_overwrite: asked, by the first process, before finished work is deleted.

    Raises:
        InputError: the folder holds another recipe's run, or something else altogether.
    """

    def __init__(
        self,
        path: Path,
        recipe_name: str,
        say: Callable[[str], None],
        may_overwrite: MayOverwrite = never,
    ) -> None:
        self.path = self.root = path
        self._say = say
        self._may_overwrite = may_overwrite
        self._expected: list[str] = []
        self._allowed: set[str] = set()
        owner = path / "run.json"
        owned = owner.exists()
        if not owned and path.is_dir() and any(path.iterdir()):
            raise InputError(f"{path}: is not the folder of a run", ["choose another with --runs-folder"])
        mend = 'write {"recipe": "NAME"} into it, the name of the recipe whose run this is'
        name = read_json(owner, mend).get("recipe") if owned else recipe_name
        if name != recipe_name:
            mend = "rename the recipe, choose another --runs-folder, or delete the folder"
            raise InputError(f"{path}: belongs to the recipe {name!r}, not {recipe_name!r}", [mend])
        wait_for_all()  # nobody writes before all have looked
        if is_first_process() and not owned:
            write_json(owner, {"recipe": recipe_name})
        wait_for_all()

    def locked(self, *, shared: bool = False) -> AbstractContextManager[None]:
        """Be the only one at work in this folder, or, `shared`, one of several that know of each other.

        Raises:
            InputError: another process is at work in it.
        """
        return locked(self.root, self._say, shared=shared)

    def part(self, name: str) -> RunFolder:
        """A folder of stages within this one."""
        part = copy.copy(self)
        part.path = self.path / name
        return part

    def expect(self, values: Mapping[str, Any], stages: Sequence[str], beside: Sequence[str] = ()) -> None:
        """Ask at once, before anything is touched, about all finished work that cannot stay.

        Args:
            values: what the run is now made from, by name; inputs of stages that are not among these are
                looked at when their stage comes.
            stages: the names of all that may come, in order.
            beside: the names of others, which stay as they are and which these may build on.

        Raises:
            InputError: finished work may not be overwritten; nothing was.
        """
        if is_first_process():
            self._expected[:] = [*beside, *stages]
            wanted = _plain(values)
            self._ask({name: self._reasons(name, wanted) for name in stages if _kind(name) != "report"})
        wait_for_all()

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        work: Callable[[Path], None],
        *,
        after: Iterable[Stage] = (),
        led_by: Iterable[Stage] = (),
        formerly: Mapping[str, Any] | None = None,
        all_processes: bool = False,
    ) -> Stage:
        """Run `work(folder)` unless it is done already for these inputs.

        Args:
            inputs: by name, JSON values that decide the result. Where a growing kind of stage gets more of
                them, or of `after`, `work` finds what is there.
            after: stages whose results decide it, too: where these start again, so does this one.
            led_by: stages that decide some of the inputs.
            formerly: what earlier versions took for inputs, too: a stage that was made from these as well
                stays as it is.
            all_processes: under torchrun, every process works; otherwise the first works, the others wait.

        Raises:
            InputError: finished work of other inputs may not be overwritten; it was not.
        """
        inputs = _plain(inputs)
        builds_on = {stage.name: stage.fingerprint for stage in after}
        format_number = FORMATS[_kind(name)]
        fingerprint = digest([name, format_number, inputs, builds_on])
        full_name = (self.path / name).relative_to(self.root).as_posix()
        state = self._state(full_name)
        # An earlier version's record names more, or less: it is compared with as much, and stays if it is the
        # same.
        noted = state.get("inputs", {})
        told = inputs | {key: value for key, value in _plain(formerly or {}).items() if key in noted}
        compared = {k: v for k, v in told.items() if k in noted or k not in ADDED or v != ADDED[k][1]}
        former_fingerprint = digest([name, format_number, compared, builds_on])
        if state.get("fingerprint") == former_fingerprint:
            inputs, fingerprint = compared, former_fingerprint
        else:
            state = _completed(state)
        stage = Stage(self.path / name, fingerprint, full_name)
        record = {
            "fingerprint": fingerprint,
            "format": format_number,
            "inputs": inputs,
            "after": builds_on,
            "led_by": [leader.name for leader in led_by],
        }
        wait_for_all()  # nobody writes before all have read
        mark = stage.folder / "stage.json"
        grows = _kind(name) in GROWING
        known = state.get("fingerprint") == fingerprint
        if state.get("finished") and (known or (grows and _is_contained(record, state))):
            self._say(f"{stage.name}: done before")
            if (
                known and is_first_process() and state != {**record, "finished": True}
            ):  # others led to the same
                write_json(mark, {**record, "finished": True})
            return stage
        known = known or (grows and _is_contained(state, record))
        if not known and is_first_process():
            self._ask({stage.name: _told_apart(stage.name, state, {**record, "inputs": told})})
        self._say(f"{stage.name}: {'continues' if known else 'starts'}")
        if is_first_process():
            if not known:
                with disk_errors(stage.folder):
                    _remove(stage.folder)
            write_json(mark, {**record, "finished": False})
        wait_for_all()
        if all_processes or is_first_process():
            with disk_errors(stage.folder):
                work(stage.folder)
        wait_for_all()
        if is_first_process():
            write_json(mark, {**record, "finished": True})
        return stage

    def finished(self, name: str, values: Mapping[str, Any]) -> Stage:
        """A finished stage, for who builds on it and must not make it.

        Args:
            values: as in `expect`.

        Raises:
            InputError: it is not there or not finished, or was made from something else.
        """
        full_name = (self.path / name).relative_to(self.root).as_posix()
        state = self._state(full_name)
        if not state.get("finished"):
            raise InputError(f"{self.root}: has no finished stage {full_name}", ["run the recipe first"])
        if found := self._changes(full_name, _completed(state), _plain(values)):
            mend = "give the recipe as it was then, or run it again first"
            raise InputError(f"{self.root}: {full_name} was made from something else", [*found, mend])
        return Stage(self.path / name, state["fingerprint"], full_name)

    def _state(self, name: str) -> dict[str, Any]:
        """What a stage's `stage.json` says; nothing where there is none."""
        mark = self.root / name / "stage.json"
        state: dict[str, Any] = read_stage_json(mark) if mark.exists() else {}
        return state

    def _reasons(self, name: str, values: Mapping[str, Any]) -> list[str]:
        """Why a stage that is there cannot stay, for what is known before any stage runs."""
        state = _completed(self._state(name))
        if not state:
            return []
        found = self._changes(name, state, values)
        if "inputs" in state and _kind(name) not in GROWING:
            others = [*state["after"], *state["led_by"]]
            found += [
                f"{other}: is no part of this run any more" for other in others if other not in self._expected
            ]
        return found

    def _changes(self, name: str, state: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
        """What a stage was made from and is now otherwise, as far as it is known."""
        if "inputs" not in state:
            return [_NAMELESS]
        known = {key: value for key, value in state["inputs"].items() if key in values}
        found = _formats(name, state["format"], FORMATS[_kind(name)])
        found += differences(known, {key: values[key] for key in known})
        for other, fingerprint in state["after"].items():
            if self._state(other).get("fingerprint", fingerprint) != fingerprint:
                found.append(f"{other}: was made again since")
        return found

    def _ask(self, reasons: Mapping[str, Sequence[str]]) -> None:
        """Have it allowed that these stages, and those that build on them, start again.

        Args:
            reasons: by name of a stage, why it cannot stay; no reasons where it can.
        """
        concerned: set[str] = set()
        lost: list[str] = []
        for name in dict.fromkeys([*self._expected, *reasons]):
            state = self._state(name)
            if reasons.get(name) or concerned & {*state.get("after", ()), *state.get("led_by", ())}:
                concerned.add(name)
                if name not in self._allowed and self._has_work(name, state):
                    lost.append(name)
        if not lost:
            return
        why = list(dict.fromkeys(reason for found in reasons.values() for reason in found))
        start = f"so this would start again: {', '.join(lost)}"
        mend = "to keep it, name this run otherwise (name=OTHER) or give another --runs-folder; "
        mend += "to delete it and go on, --overwrite"
        summary = f"{self.root}: finished work is there that was made from something else"
        refusal = InputError(summary, [*why, start, mend])
        if not self._may_overwrite(refusal):
            raise refusal
        self._say("\n".join([f"start again: {', '.join(lost)}", *(f"  {reason}" for reason in why)]))
        self._allowed.update(lost)

    def _has_work(self, name: str, state: Mapping[str, Any]) -> bool:
        """Whether a stage's folder holds what is not deleted unasked: it is finished, or took hours.

        The report only shows what the other stages hold: made again, it loses nothing.
        """
        kind = _kind(name)
        if state.get("finished"):
            return kind != "report"
        work = {"search": "candidates.jsonl", "distil": "translated.jsonl"}.get(
            kind, "checkpoint-*.safetensors"
        )
        return any((self.root / name).glob(work))


def _kind(name: str) -> str:
    """`train` of `seed-1/train-dense`."""
    return name.rpartition("/")[2].partition("-")[0]


def _completed(state: dict[str, Any]) -> dict[str, Any]:
    """A stage's record with the `ADDED` inputs that it lacks."""
    noted = state.get("inputs")
    if noted is None:
        return state
    added = {key: default for key, (beside, default) in ADDED.items() if beside in noted}
    return {**state, "inputs": added | noted}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they will be read again from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _is_contained(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    """Whether of two records of a stage one has all that the other was made from."""
    return part.get("format") == whole.get("format") and all(
        name in whole[group] and whole[group][name] == value
        for group in ("inputs", "after")
        for name, value in part.get(group, {}).items()
    )


def _told_apart(name: str, state: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """What differs between what a stage was made from and what it is to be made from."""
    if "inputs" not in state:
        return [_NAMELESS]
    found = _formats(name, state["format"], record["format"])
    found += differences(state["inputs"], record["inputs"])
    for other in dict.fromkeys([*state["after"], *record["after"]]):
        if other not in record["after"]:
            found.append(f"{other}: is no part of this run any more")
        elif other not in state["after"]:
            found.append(f"{other}: is a new part of this run")
        elif state["after"][other] != record["after"][other]:
            found.append(f"{other}: was made again since")
    return found


def _formats(name: str, before: int, now: int) -> list[str]:
    return [] if before == now else [f"{name}: is of format {before}, this program makes format {now}"]


def _remove(folder: Path) -> None:
    """Delete a folder; a kill in the middle leaves nothing under its name."""
    removed = folder.with_name(f".{folder.name}.removed")
    for path in (removed, folder):
        if path.exists():
            path.rename(removed)
            shutil.rmtree(removed)
