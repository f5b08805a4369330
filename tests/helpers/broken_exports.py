"""Exported ONNX folders that are broken, each in one way, and what their programs have to say of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx


def _truncate(folder: Path) -> None:
    graph = folder / "translation.onnx"
    graph.write_bytes(graph.read_bytes()[:5000])


def _remove_graph(folder: Path) -> None:
    (folder / "translation.onnx").unlink()


def _change_vocabulary(folder: Path) -> None:
    with (folder / "tokenizer.json").open("a") as file:
        file.write("\n")


def _configure(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def _tear_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"format": "automoe')


def _forget(folder: Path) -> None:
    (folder / "config.json").write_text('{"format": "automoe-onnx-2"}')


def _leave_for_tomorrow(folder: Path) -> None:
    path = folder / "translation.onnx"
    graph = onnx.load(path)
    graph.opset_import[0].version = 99
    onnx.save(graph, path)
    config = json.loads((folder / "config.json").read_text())
    digests = config["sha256"] | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    _configure(sha256=digests)(folder)


BREAKAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated graph": (_truncate, "translation.onnx: is not the file that config.json was written with"),
    "no graph": (_remove_graph, "translation.onnx"),
    "another vocabulary": (_change_vocabulary, "tokenizer.json: is not the file that config.json was"),
    "another size": (_configure(vocabulary_size=7), "tokens, but config.json says 7"),
    "another format": (
        _configure(format="automoe-onnx-1"),
        "of the format automoe-onnx-1, not automoe-onnx-2",
    ),
    "torn configuration": (_tear_config, "config.json: is damaged"),
    "no search": (_forget, "config.json: lacks sha256, vocabulary_size"),
    "old onnxruntime": (
        _configure(onnxruntime="99.1"),
        "is too old: translation.onnx needs 99.1 or a newer one",
    ),
    "unknown opset": (_leave_for_tomorrow, "cannot run translation.onnx: "),
}


def broken(exported: Path, folder: Path, breakage: str) -> tuple[Path, str]:
    """A copy of an exported folder that is broken; what has to be said of it."""
    copy = folder / "broken"
    shutil.copytree(exported, copy, symlinks=True)
    change, expected = BREAKAGES[breakage]
    change(copy)
    return copy, expected
