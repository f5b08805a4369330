"""The peak memory of translating: of a process of its own, so it follows the model and not this process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from automoe.cli.main import app
from automoe.cost import peak_memory
from automoe.cost.counting import count
from automoe.cost.peak_memory import measure_peak_memory
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.tokenizer import train_tokenizer
from automoe.design.architecture import dense
from automoe.design.model_options import ModelOptions
from automoe.errors import InputError
from automoe.inference.model_folder import save_model
from automoe.model.transformer import Transformer

PROTOCOL = MeasuringProtocol(backend="onnx", threads=1, source_length=4, target_length=3, beam_size=2)
SIZES = {"small": 512, "large": 12_288}
MIB = 2**20


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Models that differ in their FFNs alone: some 4 and 50 MiB of weights."""
    tokenizer = train_tokenizer(
        ["open the file", "close every window", "the quick brown fox jumps over it"], 32
    )
    found = {}
    for name, ffn_size in SIZES.items():
        model = Transformer(dense(256, ffn_size, 4, 1, 1), tokenizer.vocabulary_size, ModelOptions("pre"))
        model.initialise(0)
        found[name] = tmp_path_factory.mktemp(name)
        save_model(found[name], model, tokenizer, {})
    return found


def weights_bytes(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


def test_the_peak_grows_with_the_weights_whatever_this_process_holds(folders):
    ballast = np.ones(300 * MIB // 8)  # a child that inherited our peak would report as much
    measured = {name: measure_peak_memory(folder, PROTOCOL) for name, folder in folders.items()}
    assert ballast.sum() > 0
    more = weights_bytes(folders["large"]) - weights_bytes(folders["small"])
    small, large = (measured[name] for name in SIZES)
    # The engine holds the weights once at least; what it was made of, packed copies and their file may stay.
    assert large.peak_memory_bytes - small.peak_memory_bytes > 0.9 * more
    assert large.loading_bytes - small.loading_bytes > 0.9 * more
    assert small.peak_memory_bytes < 150 * MIB


def test_the_command_tells_it_beside_what_is_counted(folders):
    options = ["--backend", "onnx", "--threads", "1", "--runs", "10", "--beam", "2", "--json"]
    lengths = ["--source-length", "4", "--target-length", "3"]
    done = CliRunner().invoke(app, ["latency", str(folders["large"]), *options, *lengths])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    counted = count(
        dense(256, SIZES["large"], 4, 1, 1),
        MeasuringProtocol(vocabulary_size=32, source_length=4, target_length=3, beam_size=2, norm="pre"),
    )
    assert values["memory_bytes"] == counted.memory_bytes
    assert values["peak_memory_bytes"] > 0.9 * weights_bytes(folders["large"])
    assert values["latency_ms"] > 0


def test_what_stops_the_process_is_told(tmp_path, folders):
    with pytest.raises(InputError, match="peak memory") as caught:
        measure_peak_memory(tmp_path / "nowhere", PROTOCOL)
    assert "is not a model folder" in caught.value.problems[0]


def test_a_process_that_is_killed_is_told(monkeypatch, folders):
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    run = subprocess.run
    monkeypatch.setattr(peak_memory.subprocess, "run", lambda command, **options: run(killed, **options))
    with pytest.raises(InputError) as caught:
        measure_peak_memory(folders["small"], PROTOCOL)
    (problem,) = caught.value.problems
    assert "ended with -9" in problem


def test_a_system_without_a_peak_of_its_own_has_that_of_the_process(monkeypatch, tmp_path):
    """As sandboxes have it: what is resident now is told, but no peak. The peak is in bytes all the same."""
    known = peak_memory._peak_bytes()
    status = tmp_path / "status"
    status.write_text("VmRSS:\t    2028 kB\n")
    monkeypatch.setattr(peak_memory, "_STATUS", status)
    assert known // 2 < peak_memory._peak_bytes() < 100 * known
