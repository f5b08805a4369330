"""A run whose test set has pairs that are dropped: each file stays line by line, and scores say of what."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from automoe.inference.model_folder import load_model
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translator
from automoe.run.recipe import load_recipe
from helpers.tiny_run import run_here, write_tiny_recipe

pytestmark = pytest.mark.slow

# What a user's test file may hold; `None` where a pair is scored.
LINES = [
    ("1 2 3", "3 2 1", None),
    ("", "", "empty"),
    ("4 5", "", "empty"),
    ("7 8\n9\r\n1", "1 9\u20288 7", None),
    ("1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7", "too long", "too_long"),
    ("\u2028\x0b\x85", "5", "empty"),
    ("5\x0b4\x0c3\x852\u20291", "1 2 3 4 5", None),
    ("9 8 7 6 5 4 3 2 1 0 1 2 3", "1", "unequal"),
    ("6\r5", "5\u30006", None),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("lines")
    recipe = write_tiny_recipe(folder)
    rows = [{"source": source, "target": target} for source, target, _ in LINES]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "train.tsv").open("a") as file:
        file.write("only a source\t\tx\n" * 3)
    said = run_here(
        recipe,
        "data.test={path: test.jsonl}",
        "data.limits={max_characters: 30, max_length_ratio: 1.5}",
        "data.max_tokens=8",
        "fine_tuning=null",
        "systems=[{name: small, architecture: largest-dense}, {name: other, architecture: uniform}]",
        "baseline=small",
        "training.steps=10",
    )
    return folder, said


def translations(folder: Path, system: str = "small") -> list[str]:
    path = folder / "runs" / "tiny" / "seed-1" / f"evaluate-{system}" / "translations.txt"
    return path.read_text(encoding="utf-8").splitlines()  # which knows every odd line separator


def test_line_k_is_the_translation_of_line_k(finished):
    folder, _ = finished
    model, tokenizer = load_model(folder / "runs" / "tiny" / "seed-1" / "train-small" / "model")
    settings = load_recipe(folder / "tiny.yaml").recipe.translation
    translator = Translator(TorchEngine(model), tokenizer, settings)
    one_by_one = [*map(translator.translate, ([" ".join(source.split())] for source, _, _ in LINES))]
    assert translations(folder) == [line for lines in one_by_one for line in lines]
    assert len(translations(folder)) == len(LINES)


def test_scores_are_those_of_the_command_line_on_the_scored_lines(finished):
    folder, _ = finished
    kept = [k for k, (_, _, dropped) in enumerate(LINES) if dropped is None]
    lines = translations(folder)
    (folder / "hypotheses").write_text("".join(f"{lines[k]}\n" for k in kept))
    (folder / "references").write_text("".join(f"{' '.join(LINES[k][1].split())}\n" for k in kept))
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", "hypotheses", "-m", "bleu", "chrf"]
    done = subprocess.run([*command, "-w", "8"], cwd=folder, capture_output=True, text=True, check=True)
    expected = [metric["score"] for metric in json.loads(done.stdout)]
    result = json.loads((folder / "runs/tiny/seed-1/evaluate-small/result.json").read_text())
    assert [result["scores"][name] for name in ("bleu", "chrf")] == pytest.approx(expected, abs=1e-6)


def test_dropped_pairs_are_told_by_reason_on_the_console_and_in_the_report(finished):
    folder, said = finished
    report = (folder / "runs" / "tiny" / "report" / "results.md").read_text(encoding="utf-8")
    counts = {reason: [dropped for _, _, dropped in LINES].count(reason) for _, _, reason in LINES}
    test = (
        f"{counts[None]} of {len(LINES)} pairs (dropped: {counts['empty']} with an empty side, "
        f"{counts['too_long']} over limits.max_characters, {counts['unequal']} over limits.max_length_ratio)"
    )
    assert sum(test in line for line in said) == 3  # prepare, and the evaluation of two systems
    assert f"- test: {test}; every score is of these." in report
    run = folder / "runs" / "tiny"
    train = json.loads((run / "corpora.json").read_text())["train"]["report"]
    assert (train["empty"], train["kept"]) == (3, 600)
    too_many = json.loads((run / "prepare" / "report.json").read_text())["train"]["too_many_tokens"]
    assert too_many > 0
    told = f"{600 - too_many} of 603 pairs (dropped: 3 with an empty side, {too_many} over max"
    assert f"- train: {told}" in report
    assert any(told in line for line in said)


def test_the_table_says_that_scores_are_of_a_part(finished):
    folder, _ = finished
    report = folder / "runs" / "tiny" / "report"
    heading, _, row, *_ = (report / "results.md").read_text(encoding="utf-8").splitlines()
    cells = dict(zip(heading.split(" | "), row.split(" | "), strict=True))
    assert cells["test pairs scored, of 9"] == "4"
    with (report / "results.csv").open() as file:
        assert [row["scored_pairs"] for row in csv.DictReader(file)] == ["4", "4"]
