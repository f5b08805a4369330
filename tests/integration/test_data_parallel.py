"""Two processes under torchrun are one process with twice the accumulation."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from automoe.model.mixture_of_supernets import MixtureOfSupernets
from automoe.model.sharing import Supernet
from automoe.processes import joined_processes
from automoe.storage import read_json
from automoe.training import muon
from automoe.training.history import read_history
from automoe.training.loop import train, train_until
from automoe.training.results import TrainResult
from automoe.training.rules import Members
from automoe.training.settings import TrainingSettings
from helpers.reversal import LARGE, SMALL, VOCABULARY, ReversalStream, draw

pytestmark = pytest.mark.slow  # whole processes, seconds each

STEPS = 12


def one(step: int, rng: random.Random) -> Members:
    """One of the two."""
    return Members((draw(rng),))


def several(step: int, rng: random.Random) -> Members:
    """The larger one teaches the smaller one, or none does."""
    return Members((SMALL, LARGE), teacher=1 if step % 2 else None)


RULES = {"one": one, "several": several, "one with Muon": one, "several generated": several}


def run(folder: Path, accumulation: int, rule: str) -> TrainResult:
    """Train a supernet with mixtures; batches are so small that some experts get tokens on one rank only.

    With several members the training pauses in the middle.
    """
    if rule.endswith("Muon"):
        # In bfloat16 what rounding makes of a sum over processes would be a hundred thousand times as large.
        muon._dtype = lambda _: torch.float32
    stream = ReversalStream(4)
    training = (
        (MixtureOfSupernets if "generated" in rule else Supernet)(LARGE, VOCABULARY, norm="pre", seed=3),
        RULES[rule],
        ReversalStream(1, sentences=1, longest=3),
        TrainingSettings(
            steps=STEPS,
            optimizer="muon" if rule.endswith("Muon") else "adam",
            peak_rate=1e-3,
            warmup_steps=4,
            accumulation=accumulation,
            checkpoint_every=5,
            validate_every=4,
            average_checkpoints=2,
            device="cpu",
        ),
        folder,
    )
    validation = {
        "validation_batches": [next(stream) for _ in range(3)],
        "validation_networks": {"largest": LARGE, "smallest": SMALL},
    }
    if rule == "several":
        train_until(*training, 7, **validation)
    return train(*training, **validation)


@pytest.mark.parametrize("rule", RULES)
def test_two_processes_equal_one_with_twice_the_accumulation(tmp_path, rule):
    single = run(tmp_path / "single", 2, rule)
    source = Path(__file__)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, str(source), str(tmp_path / "double"), rule],
        env=os.environ | {"PYTHONPATH": str(source.parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    histories = [read_history(tmp_path / name) for name in ("single", "double")]
    assert [len(history) for history in histories] == [STEPS, STEPS]
    for one, two in zip(*histories, strict=True):
        for figure in one.keys() - {"tokens_per_second"}:
            assert two[figure] == pytest.approx(one[figure], rel=1e-5), (figure, one["step"])
    if rule == "several":
        judged = [read_json(tmp_path / name / "judged-00000007.json", "") for name in ("single", "double")]
        assert judged[1]["target_tokens"] == judged[0]["target_tokens"]
        assert judged[1]["validation"] == pytest.approx(judged[0]["validation"], rel=1e-5)
    expected = load_file(single.weights)
    for name, value in load_file(tmp_path / "double" / "weights.safetensors").items():
        # The gradient of a bias of keys is rounding noise, which Adam scales up.
        if not name.endswith("k.bias"):
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined_processes():
        run(Path(sys.argv[1]), 1, sys.argv[2])
