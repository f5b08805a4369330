"""The stage that trains the supernet: a random member of the space each step."""

from __future__ import annotations

import random
from pathlib import Path

from automoe.model.sharing import Supernet
from automoe.run.context import Run
from automoe.run.folder import Stage
from automoe.run.prepare import Prepared
from automoe.run.train import fit, new_supernet


def train_supernet(run: Run, prepared: Prepared) -> tuple[Stage, Supernet]:
    """Train the supernet, or load it; watch the largest, the smallest and two random members."""
    settings = run.recipe.supernet
    largest = run.space.largest()
    rng = random.Random(settings.seed)
    watched = {"largest": largest, "smallest": run.space.smallest()}
    watched |= {f"sample {i}": run.space.sample(rng) for i in (1, 2)}
    inputs = [prepared.stage.fingerprint, repr(run.space), run.recipe.plain("model", "supernet")]
    supernet = new_supernet(run, prepared, largest, settings.seed)

    def work(folder: Path) -> None:
        fit(run, prepared, "supernet", supernet, run.space.sample, settings, folder, watched)

    stage = run.folder.stage("supernet", inputs, work, all_processes=True)
    fit(run, prepared, "supernet", supernet, run.space.sample, settings, stage.folder, watched)
    return stage, supernet
