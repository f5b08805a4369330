"""From two text files to a table with two commands, as somebody new would; and kills in between."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from automoe.run.recipe import load_recipe
from helpers.tiny_run import automoe
from helpers.toy_text import write_pairs

pytestmark = pytest.mark.slow  # whole processes, and real measuring

INIT = ["init", "my-project", "--source", "train.en", "--target", "train.de", "--threads", "1"]
WISH = ["--flops", "50%", "--hours", "1"]  # enough for a machine that others use, too


def test_two_commands_lead_from_text_to_a_table(tmp_path):
    write_pairs(tmp_path, 40)
    done = automoe(*INIT, *WISH, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "training text: 40 of 40 pairs" in done.stdout
    assert done.stdout.splitlines()[-1] == "Run it:   automoe run my-project"
    recipe = load_recipe(tmp_path / "my-project" / "recipe.yaml").recipe
    assert (recipe.data.source_language, recipe.data.target_language) == ("en", "de")
    # Fewer steps and measurements, so that the test takes less; the recipe is the one that was written.
    fewer = [
        "latency.runs=10",
        "search.algorithm.iterations=0",
        "training.steps=30",
        "training.warmup_steps=2",
        "training.average_checkpoints=1",
    ]
    done = automoe("run", "my-project", *fewer, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "runs" / "my-project" / "report" / "results.md").read_text(encoding="utf-8")
    assert "| automoe |" in table
    assert "| dense |" in table
    done = automoe(*INIT, *WISH, cwd=tmp_path)
    assert done.returncode == 2
    assert "my-project: exists already" in done.stderr


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_init_leaves_no_folder_of_that_name_or_a_whole_one(tmp_path, seed):
    write_pairs(tmp_path, 40)
    command = [sys.executable, "-m", "automoe", *INIT, *WISH]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(random.Random(seed).uniform(0, 20))
    process.send_signal(signal.SIGKILL)
    process.wait()
    if "my-project" in os.listdir(tmp_path):
        load_recipe(tmp_path / "my-project" / "recipe.yaml")
