"""What makes a finished run start again, and what does not; nothing finished is deleted unasked."""

import gzip
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automoe.errors import InputError
from automoe.inference.model_folder import SHORTLIST, read_model
from automoe.run import inputs
from automoe.run.pipeline import stage_names
from automoe.run.recipe import load_recipe
from helpers.tiny_run import run_here, write_tiny_recipe

pytestmark = pytest.mark.slow

STEPS = 4
SYSTEMS = "{name: mine, search: evolution}, {name: dense, architecture: largest-dense}"
EVALUATIONS = {"seed-1/evaluate-mine", "seed-1/evaluate-dense"}


def run(recipe: Path, *overrides: str, overwrite: bool = False) -> dict[str, str]:
    """What became of each stage."""
    systems = f"systems=[{SYSTEMS}]"
    said = run_here(recipe, "fine_tuning=null", systems, *overrides, overwrite=overwrite)
    became = ("done before", "starts", "continues")
    return dict(parts for line in said if len(parts := line.split(": ")) == 2 and parts[1] in became)


def started(became: dict[str, str]) -> set[str]:
    return {name for name, what in became.items() if what != "done before"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_tiny_recipe(folder, steps=STEPS)
    became = run(recipe)
    assert set(became.values()) == {"starts"}
    # What is asked about at the start is what comes.
    loaded = load_recipe(recipe, ["fine_tuning=null", f"systems=[{SYSTEMS}]"])
    assert [n for n in stage_names(loaded.recipe, "report") if n != "profile"] == list(became)
    return folder


@pytest.fixture
def recipe(finished, tmp_path) -> Path:
    """Of a copy of a finished run."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy" / "tiny.yaml"


def weights(recipe: Path) -> dict[str, tuple[int, int]]:
    """Every file of weights: which it is, and when it was written."""
    paths = sorted((recipe.parent / "runs").rglob("*.safetensors"))
    assert len(paths) >= 5  # a supernet; two trainings, each with its model
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def refusal(recipe: Path, *overrides: str) -> InputError:
    """Why a run is refused; it touched nothing finished."""
    before = weights(recipe)
    stages = {path: path.read_bytes() for path in (recipe.parent / "runs").rglob("stage.json")}
    with pytest.raises(InputError) as caught:
        run(recipe, *overrides)
    assert weights(recipe) == before
    assert {path: path.read_bytes() for path in (recipe.parent / "runs").rglob("stage.json")} == stages
    return caught.value


def refused(found: InputError) -> tuple[list[str], set[str]]:
    """What changed, and what would start again."""
    *why, start, _ = found.problems
    return why, set(start.removeprefix("so this would start again: ").split(", "))


def test_another_test_set_is_the_evaluations_alone(recipe):
    test = recipe.parent / "test.tsv"
    test.write_text(test.read_text() + "1 2 3\t3 2 1\tmore\n")
    why, start = refused(refusal(recipe))
    assert why[0] == "data.test.pairs: 60 -> 61"
    assert start == EVALUATIONS
    before = weights(recipe)
    assert started(run(recipe, overwrite=True)) == EVALUATIONS | {"report"}
    assert weights(recipe) == before
    lines = (recipe.parent / "runs/tiny/seed-1/evaluate-mine/translations.txt").read_text().splitlines()
    assert len(lines) == 61
    assert started(run(recipe)) == set()


def test_the_target_language_is_what_scores_depend_on(recipe):
    why, start = refused(refusal(recipe, "data.target_language=fr"))
    assert why == ["data.target_language: de -> fr"]
    assert start == EVALUATIONS
    before = weights(recipe)
    assert started(run(recipe, "data.target_language=fr", overwrite=True)) == EVALUATIONS | {"report"}
    assert weights(recipe) == before


def test_the_same_pairs_in_other_files_and_words_change_nothing(recipe, monkeypatch):
    """Compressed, elsewhere, in another format, as two files, with a blank line and a third column less."""
    folder = recipe.parent
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    with gzip.open(elsewhere / "text.tsv.gz", "wb") as file:
        file.write((folder / "train.tsv").read_bytes())
    rows = [line.split("\t") for line in (folder / "valid.tsv").read_text().splitlines()]
    records = [json.dumps({"document": "", "target": row[1], "source": row[0]}) for row in rows]
    (elsewhere / "valid.jsonl").write_text("\n\n".join(records))
    rows = [line.split("\t") for line in (folder / "test.tsv").read_text().splitlines()]
    # Scores are against references as they are spelled, to the last blank.
    for column, (side, blanks) in enumerate((("source", "  "), ("target", ""))):
        (elsewhere / f"test.{side}").write_text("".join(f"{row[column]}{blanks}\n" for row in rows))
    for split in ("train", "valid", "test"):
        (folder / f"{split}.tsv").unlink()
    *lines, last = recipe.read_text().strip().splitlines()
    lines = [line for line in lines if not line.startswith("  train:")]
    text = "\n".join(["# another comment", last, *lines])
    recipe.write_text(text.replace("data:", "data:\n  train: {path: elsewhere/text.tsv.gz}"))
    monkeypatch.setattr("automoe.run.corpora.__version__", "99.0")
    monkeypatch.setattr("automoe.__version__", "99.0")
    became = run(
        recipe,
        "data.valid={path: elsewhere/valid.jsonl}",
        "data.test={source_path: elsewhere/test.source, target_path: elsewhere/test.target}",
        "data.limits={max_characters: 1999}",
        "training.checkpoint_every=3",
        "supernet.checkpoint_every=3",
    )
    # The report tells the names of files, and is made again unasked.
    assert {stage for stage, how in became.items() if how != "done before"} == {"report"}
    assert len(became) == 10


OTHERWISE = [
    f"{section}.{setting}"
    for section in ("training", "supernet")
    for setting in ("validate_every=3", "device=auto", "checkpoint_every=3")
]


def test_neither_when_it_is_validated_nor_where_it_is_computed_starts_a_training_again(recipe):
    before = weights(recipe)
    assert started(run(recipe, *OTHERWISE)) == set()
    assert weights(recipe) == before
    noted = [json.loads(path.read_text())["inputs"] for path in (recipe.parent / "runs").rglob("stage.json")]
    assert any("training.steps" in values for values in noted)
    assert not any(name.endswith(("validate_every", "device")) for values in noted for name in values)


def test_stages_of_a_version_that_took_these_for_inputs_are_kept(tmp_path, monkeypatch):
    recipe = write_tiny_recipe(tmp_path, steps=STEPS)
    with monkeypatch.context() as earlier:
        earlier.setattr("automoe.training.settings.UNDECISIVE", ("checkpoint_every",))
        assert set(run(recipe).values()) == {"starts"}
    before = weights(recipe)
    assert started(run(recipe)) == set()
    assert weights(recipe) == before
    why, start = refused(refusal(recipe, "training.validate_every=3"))
    assert why == ["training.validate_every: 20 -> 3"]
    assert {"seed-1/train-mine", "seed-1/train-dense"} <= start
    # A new system is trained by the same architecture's training of then.
    systems = f"systems=[{SYSTEMS}, {{name: twin, architecture: largest-dense}}]"
    folders = set((recipe.parent / "runs/tiny/seed-1/trainings").iterdir())
    assert run(recipe, systems)["seed-1/train-twin"] == "starts"
    assert set((recipe.parent / "runs/tiny/seed-1/trainings").iterdir()) == folders


def test_the_optimizer_of_all_versions_is_no_input_and_another_one_is_named(recipe):
    assert started(run(recipe, "training.optimizer=adam", "supernet.optimizer=adam")) == set()
    noted = [json.loads(path.read_text())["inputs"] for path in (recipe.parent / "runs").rglob("stage.json")]
    assert any("training.steps" in values for values in noted)
    assert not any(name.endswith("optimizer") for values in noted for name in values)
    why, start = refused(refusal(recipe, "training.optimizer=muon"))
    assert why == ["training.optimizer: nothing -> muon"]
    assert "seed-1/train-mine" in start


@pytest.mark.parametrize("what", ["a line more", "a character", "the order"])
def test_other_pairs_to_train_on_start_everything_again(recipe, what):
    train = recipe.parent / "train.tsv"
    lines = train.read_text().splitlines()
    changed = {
        "a line more": [*lines, "7 8\t8 7\tmore"],
        "a character": [lines[0].replace("\t", "0\t", 1), *lines[1:]],
        "the order": [lines[1], lines[0], *lines[2:]],
    }
    train.write_text("".join(f"{line}\n" for line in changed[what]))
    why, start = refused(refusal(recipe))
    assert all(line.startswith("data.train.") for line in why)
    assert ("data.train.pairs: 600 -> 601" in why) == (what == "a line more")
    everything = {
        "prepare",
        "seed-1/supernet",
        "seed-1/search-mine",
        "seed-1/train-mine",
        "seed-1/train-dense",
    }
    assert start == everything | EVALUATIONS | {"seed-1/latency"}


def test_what_changed_is_named_with_both_values_and_may_be_overwritten(recipe):
    why, start = refused(refusal(recipe, "training.steps=6", "latency.runs=11"))
    assert why == [f"training.steps: {STEPS} -> 6", "latency.runs: 10 -> 11"]
    trained = {"seed-1/train-mine", "seed-1/train-dense"}
    assert start == trained | EVALUATIONS | {"seed-1/latency"}
    before = weights(recipe)
    again = trained | EVALUATIONS | {"seed-1/latency", "report"}
    assert started(run(recipe, "training.steps=6", "latency.runs=11", overwrite=True)) == again
    seed = recipe.parent / "runs/tiny/seed-1"
    facts = json.loads((seed / "train-dense/training.json").read_text())
    history = (seed / "train-dense" / facts["history"] / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in history] == [1, 2, 3, 4, 5, 6]
    # Trainings are kept by content: those of before are still there, and are found again.
    assert all(
        after == before[path]
        for path, after in weights(recipe).items()
        if "trainings" in path and path in before
    )
    assert len(list(seed.glob("trainings/*/weights.safetensors"))) == 4
    back = run(recipe, overwrite=True)
    assert back["seed-1/train-dense"] == "starts"
    assert len(list(seed.glob("trainings/*/weights.safetensors"))) == 4


def test_what_is_added_takes_nothing_away(recipe):
    before = weights(recipe)
    systems = f"systems=[{SYSTEMS}, {{name: hat, search: evolution, experts: dense}}]"
    became = run(recipe, systems)
    fresh = {"seed-1/search-hat", "seed-1/train-hat", "seed-1/evaluate-hat", "report"}
    assert {name for name, what in became.items() if what == "starts"} == fresh
    assert {name for name, what in became.items() if what == "continues"} == {"budget", "seed-1/latency"}
    assert weights(recipe).items() >= before.items()
    latencies = json.loads((recipe.parent / "runs/tiny/seed-1/latency/latency.json").read_text())
    assert set(latencies) == {"mine", "dense", "hat"}
    assert started(run(recipe)) == {"report"}  # and without it again
    table = (recipe.parent / "runs/tiny/report/results.md").read_text()
    assert "| hat |" not in table


def test_stages_of_an_earlier_version_are_kept_and_the_mend_is_named(recipe):
    for path in (recipe.parent / "runs").rglob("stage.json"):
        path.write_text(json.dumps({"fingerprint": "0" * 64, "finished": True}))
    found = refusal(recipe)
    why, start = refused(found)
    assert len(why) == 1
    assert "earlier version" in why[0]
    assert {"prepare", "seed-1/supernet", "seed-1/train-mine"} <= start
    assert "--overwrite" in found.problems[-1]


COMMAND = [sys.executable, "-m", "automoe"]


def on_a_terminal(recipe: Path, answer: str) -> tuple[int, str]:
    """`automoe prepare` with other settings, at which somebody sits who answers; exit code and screen."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, "prepare", str(recipe), "data.max_tokens=9"]
    with subprocess.Popen(command, cwd=recipe.parent, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        screen = ""
        try:
            while chunk := os.read(ours, 4096):
                screen += chunk.decode()
                if "[y/N]" in screen and answer:
                    os.write(ours, f"{answer}\n".encode())
                    answer = ""
        except OSError:  # its end of the terminal is closed
            pass
    os.close(ours)
    return process.returncode, screen


@pytest.mark.parametrize(("answer", "code"), [("n", 2), ("y", 0)])
def test_on_a_terminal_it_asks(recipe, answer, code):
    stage = recipe.parent / "runs/tiny/prepare/stage.json"
    before = stage.read_bytes()
    returned, screen = on_a_terminal(recipe, answer)
    assert returned == code, screen
    assert "data.max_tokens: 128 -> 9" in screen
    assert "so this would start again: prepare" in screen.replace("\r", "")
    assert (stage.read_bytes() == before) == (answer == "n")


def test_elsewhere_the_command_refuses_with_exit_code_2_and_goes_on_with_the_option(recipe):
    def prepare(*options: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "prepare", str(recipe), "data.max_tokens=9", *options]
        return subprocess.run(
            command, cwd=recipe.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    done = prepare()
    assert (done.returncode, done.stdout) == (2, "")
    assert "data.max_tokens: 128 -> 9" in done.stderr
    assert "Traceback" not in done.stderr
    done = prepare("--overwrite")
    assert done.returncode == 0, done.stderr
    assert "prepare: starts" in done.stderr


def test_a_run_that_is_at_work_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=100_000)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*COMMAND, "supernet", str(recipe)]
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log) as process:
        checkpoints = tmp_path / "runs/tiny/seed-1/supernet"
        limit = time.monotonic() + 240
        while not any(checkpoints.glob("checkpoint-*")) and time.monotonic() < limit:
            time.sleep(0.05)
        with pytest.raises(InputError, match="at work already"):
            run_here(recipe, until="prepare")
        process.send_signal(signal.SIGKILL)
    assert "prepare: done before" in run_here(recipe, until="prepare")
    # Its training is not finished, but what it has is not deleted either.
    with pytest.raises(InputError, match=r"supernet\.steps: 100000 -> 5") as caught:
        run_here(recipe, "supernet.steps=5", until="supernet")
    assert "so this would start again: seed-1/supernet" in caught.value.problems
    assert any(checkpoints.glob("checkpoint-*"))


SHORTLISTED = EVALUATIONS | {"seed-1/latency"}


def test_stages_of_a_version_without_shortlists_are_kept_and_its_models_get_one(tmp_path, monkeypatch):
    recipe = write_tiny_recipe(tmp_path, steps=STEPS)
    with monkeypatch.context() as earlier:
        earlier.setattr("automoe.run.folder.ADDED", {})
        earlier.setattr("automoe.run.pipeline.add_shortlists", lambda run, prepared, trained: None)
        for module in ("evaluate", "device_profile"):
            for names in ("COUNTED", "MEASURED"):
                values = getattr(inputs, names)
                without = tuple(name for name in values if name != "latency.shortlist")
                earlier.setattr(f"automoe.run.{module}.{names}", without)
        assert set(run(recipe).values()) == {"starts"}
    models = [recipe.parent / f"runs/tiny/seed-1/train-{name}/model" for name in ("mine", "dense")]
    before = weights(recipe)
    assert not any((model / SHORTLIST).exists() for model in models)
    why, start = refused(refusal(recipe, "latency.shortlist=12"))
    assert why == ["latency.shortlist: 0 -> 12"]
    assert start >= SHORTLISTED
    assert started(run(recipe)) == set()
    assert weights(recipe).items() >= before.items()
    learned = [read_model(model).shortlist for model in models]
    assert all(shortlist is not None for shortlist in learned)
    before = weights(recipe)
    assert started(run(recipe)) == set()
    assert weights(recipe) == before


def test_another_shortlist_translates_and_measures_again(recipe):
    why, start = refused(refusal(recipe, "latency.shortlist=12"))
    assert why == ["latency.shortlist: 0 -> 12"]
    assert start >= SHORTLISTED
    seed = recipe.parent / "runs/tiny/seed-1"
    before = (seed / "evaluate-dense/translations.txt").read_text()
    assert started(run(recipe, "latency.shortlist=12", overwrite=True)) >= SHORTLISTED | {"report"}
    assert (seed / "evaluate-dense/translations.txt").read_text() != before
    assert "a shortlist of 12 tokens" in (recipe.parent / "runs/tiny/report/report.html").read_text()
    why, start = refused(refusal(recipe))
    assert why == ["latency.shortlist: 12 -> 0"]
    assert start >= SHORTLISTED
