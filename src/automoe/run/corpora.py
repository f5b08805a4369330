"""What the recipe's corpora hold: the pairs that are left after reading, whatever files they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal, get_args

from automoe import __version__
from automoe.data.corpus import LoadReport, load_pairs, load_whole
from automoe.processes import is_first_process, wait_for_all
from automoe.run.context import Run
from automoe.run.folder import read_stage_json
from automoe.storage import digest, file_digest, read_json, write_json

Split = Literal["train", "valid", "test"]

READING = 2
"""Raised when the same files would now be read as other pairs: then what is known of them counts no more."""


def corpus_values(run: Run, *splits: Split) -> dict[str, Any]:
    """The numbers of usable pairs of corpora and the digests of these pairs, as inputs of stages.

    What was read is remembered in `corpora.json` of the run's folder, with what was dropped; it is read again
    when the files or their description change, or the program does.

    Raises:
        InputError: a corpus cannot be read, or nothing usable is in it.
    """
    file = run.folder.root / "corpora.json"
    known = _read(file)
    wait_for_all()  # nobody writes before all have looked
    keys = {split: _read_from(run, split) for split in splits}
    stale = [split for split, key in keys.items() if known.get(split, {}).get("read_from") != key]
    if stale:
        if is_first_process():
            for split in stale:
                known[split] = {"read_from": keys[split], **_content(run, split)}
                write_json(file, known)
        wait_for_all()
        known = _read(file)
    return {f"data.{split}": {name: known[split][name] for name in ("pairs", "content")} for split in splits}


def load_reports(run: Run, prepared: Path) -> dict[str, LoadReport]:
    """What became of the pairs of each corpus that was read.

    Args:
        prepared: the folder of the stage `prepare`, which knows how many pairs have too many tokens.
    """
    known = _read(run.folder.root / "corpora.json")
    reports = {
        split: LoadReport.from_plain(known[split]["report"]) for split in get_args(Split) if split in known
    }
    for split, counted in read_stage_json(prepared / "report.json").items():
        count = counted["too_many_tokens"]
        kept = reports[split].kept - count
        reports[split] = dataclasses.replace(reports[split], kept=kept, too_many_tokens=count)
    return reports


def _read(file: Path) -> dict[str, Any]:
    known: dict[str, Any] = read_json(file, "delete it; it is made again") if file.exists() else {}
    return known


def _content(run: Run, split: Split) -> dict[str, Any]:
    data = run.recipe.data
    hashed = hashlib.sha256()
    if split == "test":  # every line is translated, and scored against references as they are spelled
        test = load_whole(data.test, data.limits)
        report, texts = test.report, [test.kept, [pair.source for pair in test.pairs], test.references]
        hashed.update(json.dumps(texts).encode())
    else:
        pairs, report = load_pairs(getattr(data, split), data.limits)
        for pair in pairs:  # no side has a tab or a line end
            hashed.update(f"{pair.source}\t{pair.target}\n".encode())
    if report.not_used is not None:
        run.reporter.say(f"data.{split}: {report.not_used}")
    return {"pairs": report.kept, "content": hashed.hexdigest(), "report": dataclasses.asdict(report)}


def _read_from(run: Run, split: Split) -> str:
    """What decides which pairs are read: the description, the content of files, this program."""
    data = run.recipe.data
    plain: dict[str, Any] = dataclasses.asdict(getattr(data, split))
    for key in ("path", "source_path", "target_path"):
        if plain[key] is not None:
            path = Path(plain[key])
            plain[key] = [path.name, file_digest(path)]
    if plain["dataset"] is not None and (folder := Path(plain["dataset"])).is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        plain["dataset"] = [[str(path.relative_to(folder)), file_digest(path)] for path in files]
    return digest([__version__, READING, plain, dataclasses.asdict(data.limits)])
