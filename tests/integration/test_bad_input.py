"""Bad input on the command line: one clear message, exit code 2, no traceback, nothing half-written."""

import json
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

from automoe.cli.main import main
from helpers.served import write_tiny_model
from helpers.tiny_run import automoe, write_tiny_recipe

pytestmark = pytest.mark.slow  # whole processes, seconds each


def refused(folder: Path, *arguments: str | Path) -> str:
    """Run a command that must be refused; its message."""
    done = automoe(*arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def test_every_problem_of_a_recipe_is_listed_at_once(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    message = refused(
        tmp_path, "run", recipe, "training.stesp=3", "supernet.steps=many", "data.max_tokens=0", "colour=red"
    )
    for part in ("training.stesp", "supernet.steps", "data.max_tokens", "colour", "unknown key"):
        assert part in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.constraints={bleu: 3}", "bleu"),
        ("search.constraints={flops: -1}", "flops"),
        ("training.warmup_steps=100000", "warmup_steps"),
        ("space=missing.yaml", "missing.yaml"),
        ("data.train.path=missing.tsv", "missing.tsv"),
        ("systems=[automoe, dense]", "systems[0]: expected keys and values, got 'automoe'"),
        ("systems=[{name: mine, search: luck}]", "unknown strategy 'luck' (known: evolution, random, nsga2)"),
        ("systems=[{name: dense, architecture: nowhere.yaml}]", "nowhere.yaml"),
        ("baseline=best", "expected a system with an architecture (dense, switch), got 'best'"),
        ("seeds=[2, 2]", "seeds: expected each seed once"),
        ("supernet.seed=2", "`seeds` of the recipe sets every seed"),
        ("nonsense", "key=value"),
    ],
)
def test_a_bad_value_is_named(tmp_path, override, expected):
    recipe = write_tiny_recipe(tmp_path)
    assert expected in refused(tmp_path, "run", recipe, override)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("section", ["supernet", "training", "fine_tuning"])
def test_a_device_that_is_missing_is_found_by_the_first_stage(tmp_path, section):
    recipe = write_tiny_recipe(tmp_path)
    assert "device: cuda, but this machine has none" in refused(
        tmp_path, "prepare", recipe, f"{section}.device=cuda"
    )
    assert not (tmp_path / "runs" / "tiny" / "prepare").exists()


def test_a_rule_across_fields_names_its_section_beside_the_other_problems(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    message = refused(tmp_path, "run", recipe, "training.warmup_steps=100000", "supernet.steps=0")
    assert "training.warmup_steps: expected at most steps (40), got 100000" in message
    assert "supernet.steps: expected at least 1, got 0" in message


def test_a_missing_recipe_and_one_that_is_not_yaml(tmp_path):
    assert "nowhere.yaml" in refused(tmp_path, "run", "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    assert "broken.yaml" in refused(tmp_path, "run", "broken.yaml")


def test_an_impossible_space_is_explained(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    (tmp_path / "space.yaml").write_text("qkv_dim: 30\nencoder: {widths: []}\n")
    message = refused(tmp_path, "space", "space.yaml")
    assert "space.yaml" in message
    assert "widths" in message
    assert "decoder" in message
    assert "space.yaml" in refused(tmp_path, "run", recipe, f"space={tmp_path / 'space.yaml'}")


def test_a_budget_nothing_satisfies_names_the_nearest_value(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    message = refused(tmp_path, "run", recipe, "search.constraints={parameters: 10, flops: 1.0e+15}")
    assert "parameters" in message
    assert "10" in message
    assert not (tmp_path / "runs" / "tiny" / "seed-1").exists()  # known before anything is trained


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    assert automoe("prepare", recipe, cwd=tmp_path).returncode == 0
    (tmp_path / "runs" / "tiny").rename(tmp_path / "runs" / "other")
    assert "belongs to" in refused(tmp_path, "prepare", recipe, "name=other")
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "runs" / "mine" / "photo.jpg").write_text("")
    assert "not the folder of a run" in refused(tmp_path, "prepare", recipe, "name=mine")


def test_three_sentences_are_too_few(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    (tmp_path / "train.tsv").write_text("1 2\t2 1\ta\n3 4\t4 3\tb\n5\t5\tc\n")
    message = refused(tmp_path, "prepare", recipe, "data.vocabulary.size=4000")
    assert "vocabulary" in message


def test_a_truncated_checkpoint_is_named(tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=20)
    assert automoe("supernet", recipe, cwd=tmp_path).returncode == 0
    weights = tmp_path / "runs" / "tiny" / "seed-1" / "supernet" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    assert "weights.safetensors" in refused(tmp_path, "search", recipe)


def test_translate_refuses_what_is_no_model(tmp_path):
    assert "missing" in refused(tmp_path, "translate", tmp_path)


def another_tokenizer(folder: Path) -> None:
    """With as many tokens, of which two have changed places."""
    path = folder / "tokenizer.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    ids = plain["model"]["vocab"]
    *_, one, other = ids
    ids[one], ids[other] = ids[other], ids[one]
    path.write_text(json.dumps(plain), encoding="utf-8")


def another_architecture(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["architecture"]["encoder"].pop()
    path.write_text(json.dumps(config))


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "command", ["translate {}", "serve {}", "export {} --to onnx -o out", "latency {} --backend onnx"]
)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "model.safetensors: is damaged or no safetensors file"),
        (another_tokenizer, "the tokenizer is not this model's"),
        (another_architecture, "the weights do not fit config.json"),
    ],
)
def test_a_damaged_model_is_refused_by_whatever_uses_it(
    tmp_path, monkeypatch, capsys, command, damage, message
):
    model = write_tiny_model(tmp_path / "model")
    damage(model)
    assert message in refused_here(monkeypatch, capsys, *command.format(model).split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("command", ["translate {}", "serve {}", "latency {} --backend onnx"])
def test_an_onnxruntime_that_is_too_old_is_refused(tmp_path, monkeypatch, capsys, command):
    model = write_tiny_model(tmp_path / "model")
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    message = refused_here(monkeypatch, capsys, *command.format(model).split())
    assert "ONNX Runtime 1.22.1 is too old" in message
    assert "pip install 'onnxruntime>=" in message


def refused_here(monkeypatch, capsys, *arguments: str) -> str:
    """As `refused`, in this process; where it runs is the folder of the test."""
    monkeypatch.setattr(sys, "argv", ["automoe", *arguments])
    monkeypatch.chdir(Path(arguments[1]).parent)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    output, message = capsys.readouterr()
    assert output == ""
    return message
