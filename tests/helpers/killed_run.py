"""A tiny run with every stage, killed at some moment, and all that it concludes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from automoe.run.recipe import load_recipe
from helpers.tiny_run import write_made_up_profile, write_tiny_recipe

# A bound that every machine keeps: two runs measure different latencies and must choose the same.
BOUNDS = "{flops: 90%, latency_ms: 10000}"
SYSTEMS = ["automoe", "dense", "hat", "switch", "random", "automoe-inherited", "automoe-fine-tuned"]
SEARCHED = ["automoe", "hat", "random"]
RANKING = {"finals": "{candidates: 4, dense: 1}", "own_steps": "{steps: 2, candidates: 6}"}


def write_tiny_recipe_with_profile(folder: Path) -> Path:
    """The tiny recipe with every stage, but for measuring this machine."""
    recipe = write_tiny_recipe(folder, constraints=BOUNDS, **RANKING)
    profile = write_made_up_profile(folder / "device.json", load_recipe(recipe))
    recipe.write_text(recipe.read_text().replace("latency: {", f"latency: {{profile: {profile}, "))
    return recipe


def numbers(run: Path) -> dict[str, Any]:
    """Everything a run concludes, but for times: scores, translations, candidates, digests of weights."""
    found: dict[str, Any] = {}
    seed = run / "seed-1"
    for system in SYSTEMS:
        result = json.loads((seed / f"evaluate-{system}" / "result.json").read_text())
        del result["translation_seconds"], result["training"]["seconds"]
        result["translations"] = (seed / f"evaluate-{system}" / "translations.txt").read_text()
        result["weights"] = _weights_digest(seed / f"train-{system}" / "model" / "model.safetensors")
        found[system] = result
    for system in SEARCHED:
        race = json.loads((seed / f"finals-{system}" / "race.json").read_text())
        del race["seconds"]
        chosen = json.loads((seed / f"search-{system}" / "chosen.json").read_text())
        scores = [(f["architecture"], f["inherited_score"], f["score"]) for f in chosen["finalists"]]
        journal = (seed / f"search-{system}" / "candidates.jsonl").read_text().splitlines()
        found |= {f"race of {system}": race, f"finalists of {system}": scores}
        candidates = [json.loads(line) for line in journal]
        for candidate in candidates:  # priced only where there is a bound on it
            candidate.pop("latency_ms", None)
        found[f"candidates of {system}"] = candidates
    found["supernet"] = _weights_digest(seed / "supernet" / "weights.safetensors")
    return found


def _weights_digest(path: Path) -> str:
    """Of the tensors alone: beside those of a checkpoint lies how long it took."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        hashed.update(f"{name} {tensor.dtype} {tensor.shape} ".encode() + tensor.tobytes())
    return hashed.hexdigest()


def killed(recipe: Path, moment: Callable[[], bool], seconds: float) -> bool:
    """Run a recipe, and kill it with signal 9 at a moment, or after some seconds; False if it ends before."""
    command = [sys.executable, "-m", "automoe", "run", str(recipe)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=recipe.parent, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    start = time.monotonic()
    while process.poll() is None and time.monotonic() < start + seconds and not moment():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL
