"""What a run says of its corpora, and remembers."""

import json
from pathlib import Path

from helpers.tiny_run import run_here, write_tiny_recipe


def test_columns_that_are_not_used_are_said_once_a_file_and_stand_in_the_report(tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path)
    rows = [line.split("\t") for line in (tmp_path / "train.tsv").read_text().splitlines()]
    objects = [{"id": k, "source": row[0], "target": row[1], "score": 1} for k, row in enumerate(rows)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects))
    lines = (tmp_path / "test.tsv").read_text().splitlines()
    (tmp_path / "test.tsv").write_text("".join(f"{line}\t0.5\n" for line in lines))
    overrides = ["data.train={path: train.jsonl}"]
    said = run_here(recipe, *overrides, until="prepare")
    told = [line for line in said if "not used" in line]
    assert told == ["data.train: not used: id, score", "data.test: not used: column 3 (from 0)"]
    report = json.loads((tmp_path / "runs" / "tiny" / "prepare" / "report.json").read_text())
    assert {split: report[split]["unused_columns"] for split in report} == {
        "train": ["id", "score"],
        "valid": [],
    }
    assert not any("not used" in line for line in run_here(recipe, *overrides, until="prepare"))
    # Another column of the same pairs starts nothing again, and is told.
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row | {"x": 0}) + "\n" for row in objects))
    said = run_here(recipe, *overrides, until="prepare")
    assert "data.train: not used: id, score, x" in said
    assert "prepare: done before" in said
