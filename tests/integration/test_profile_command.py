"""`automoe profile`: a real, tiny measurement from end to end, its check, and bad input."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from automoe.cli.main import app
from automoe.cost import beside
from automoe.cost.device import probes
from automoe.cost.device.profile import load_profile
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.space import SearchSpace
from automoe.errors import InputError

STACK = {
    "widths": [8],
    "layer_counts": [1, 2],
    "self_attention_heads": [2],
    "ffn_sizes": [8, 16],
    "max_experts": 2,
    "top_k": [1],
}
SPACE = {
    "qkv_dim": 8,
    "encoder": STACK,
    "decoder": STACK | {"cross_attention_heads": [2], "encoder_layers_attended": [1]},
}
LENGTHS = (
    *("--beam", "2", "--source-length", "3", "--target-length", "2", "--vocabulary-size", "70"),
    *("--threads", "1", "--turns", "10"),
)


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.setattr(beside, "SHORTEST_TURN_MS", 0.01)
    monkeypatch.setattr(probes, "WHOLE_MODELS", 2)
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE))
    return path


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_profile_is_made_and_checked(tmp_path, space):
    output = tmp_path / "device.json"
    done = run("profile", "--space", space, *LENGTHS, "-o", output, "--json")
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["probes"] == len(probes.probes(SearchSpace.from_dict(SPACE)))
    profile = load_profile(output)
    assert profile.protocol == MeasuringProtocol(
        backend="onnx", threads=1, beam_size=2, source_length=3, target_length=2, vocabulary_size=70
    )
    assert profile.predict(SearchSpace.from_dict(SPACE).smallest()).latency_ms > 0
    check = run("profile", "--check", output, "--samples", 10, "--turns", 10, "--json")
    assert check.exit_code == 0, check.output
    report = json.loads(check.stdout)
    assert report["samples"] == 10
    assert report["mean_absolute_percentage_error"] >= 0
    assert (tmp_path / "device.check.png").stat().st_size > 1000
    assert report["picture"] == str(tmp_path / "device.check.png")


def test_a_profile_of_no_space_is_refused(tmp_path):
    refused = run("profile", "-o", tmp_path / "device.json")
    assert isinstance(refused.exception, InputError)
    assert "--space" in refused.exception.problems[0]


def test_bad_input_is_refused_before_anything_is_measured(tmp_path, space):
    output = tmp_path / "device.json"
    refused = run("profile", "--space", space, "--backend", "onnx", "--precision", "float16", "-o", output)
    assert isinstance(refused.exception, InputError)
    assert "float16" in str(refused.exception)
    few = run("profile", "--space", space, "--turns", 3, "-o", output)
    assert "turns: at least 10, not 3" in str(few.exception)
    nowhere = run("profile", "--space", space, *LENGTHS, "-o", tmp_path / "nowhere" / "device.json")
    assert isinstance(nowhere.exception, InputError)
    assert "cannot be written" in str(nowhere.exception)
    assert not output.exists()
    output.write_text("{")
    damaged = run("profile", "--check", output, "--space", space)
    assert isinstance(damaged.exception, InputError)
    assert "device.json" in str(damaged.exception)
