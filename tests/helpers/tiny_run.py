"""A whole run in seconds: reversing digit strings, on the toy space. Shared by several tests."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from automoe.cost.beside import Ratio
from automoe.cost.counting import count
from automoe.cost.device.probes import Probe
from automoe.cost.device.probing import make_profile
from automoe.progress import Reporter
from automoe.run.pipeline import StageName, run_recipe
from automoe.run.recipe import LoadedRecipe, load_recipe
from helpers.paths import REPOSITORY

TRAINING = (
    "{{steps: {steps}, peak_rate: 3.0e-3, warmup_steps: 2, batch_tokens: 200, checkpoint_every: 10, "
    "validate_every: 20, average_checkpoints: 2, device: cpu}}"
)


def write_tiny_recipe(
    folder: Path,
    name: str = "tiny",
    steps: int = 40,
    constraints: str = "{flops: 90%}",
    finals: str = "off",
    own_steps: str = "null",
) -> Path:
    """Corpora and a recipe in `folder`; the recipe's path. Only a bound on the latency makes a profile."""
    rng = random.Random(5)
    for split, lines in (("train", 600), ("valid", 60), ("test", 60)):
        rows = []
        for line in range(lines):
            digits = [rng.choice("0123456789") for _ in range(rng.randint(2, 7))]
            rows.append(f"{' '.join(digits)}\t{' '.join(reversed(digits))}\t{split}{line}\n")
        (folder / f"{split}.tsv").write_text("".join(rows), encoding="utf-8")
    recipe = folder / f"{name}.yaml"
    recipe.write_text(
        f"""
name: {name}
space: {REPOSITORY / "recipes" / "spaces" / "copy-toy.yaml"}
data:
  train: {{path: train.tsv}}
  valid: {{path: valid.tsv}}
  test: {{path: test.tsv}}
  source_language: en
  target_language: de
  vocabulary: {{size: 24, kind: bpe}}
model: {{norm: pre, dropout: 0.1}}
supernet: {TRAINING.format(steps=steps)}
search:
  sentences: 40
  constraints: {constraints}
  own_steps: {own_steps}
  algorithm: {{iterations: 2, population: 6, parents: 3, mutations: 3, crossovers: 3}}
training: {TRAINING.format(steps=steps)}
fine_tuning: {TRAINING.format(steps=20)}
systems:
  - {{name: automoe, search: evolution}}
  - {{name: dense, architecture: largest-dense}}
  - {{name: hat, search: evolution, experts: dense}}
  - {{name: switch, architecture: uniform}}
  - {{name: random, search: random}}
baseline: dense
finals: {finals}
latency: {{source_length: 5, target_length: 5, beam_size: 2, threads: 1, runs: 10}}
""",
        encoding="utf-8",
    )
    return recipe


def write_made_up_profile(path: Path, loaded: LoadedRecipe) -> Path:
    """A profile for this recipe, made without measuring: time in proportion to active parameters."""
    largest = count(loaded.space.largest_dense()).active_parameters

    def measure(probe: Probe, turns: int) -> Ratio:
        ratio = count(probe.architecture).active_parameters / largest
        return Ratio(ratio, ratio, 10.0, 40.0, spread=0.0, stolen_share=0.0)

    make_profile(loaded.space, loaded.recipe.protocol(), path, print, measure=measure)
    return path


class Listener(Reporter):
    """Hears what a run says; the user sees nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def run_here(
    recipe: Path, *overrides: str, until: StageName = "report", overwrite: bool = False
) -> list[str]:
    """Run a recipe in this process, in `runs/` beside it; what the run said."""
    listener = Listener()
    loaded = load_recipe(recipe, overrides)
    run_recipe(loaded, recipe.parent / "runs", listener, until, lambda refusal: overwrite)
    return listener.said


def automoe(*arguments: str | Path, cwd: Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "automoe", *map(str, arguments)],
        cwd=cwd,
        input=text,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
