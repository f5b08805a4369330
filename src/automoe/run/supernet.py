"""The stage that trains the supernet: at each step the members of the space that its rule draws."""

from __future__ import annotations

import random
from pathlib import Path

from automoe.model.sharing import Supernet
from automoe.processes import is_first_process
from automoe.run.context import Run
from automoe.run.folder import Stage
from automoe.run.inputs import former_values, settings_values
from automoe.run.prepare import Prepared
from automoe.run.train import fit, new_supernet, training_facts
from automoe.storage import write_json
from automoe.training.rules import RULES
from automoe.training.settings import SupernetSettings


def train_supernet(
    run: Run, prepared: Prepared, settings: SupernetSettings | None = None, name: str = "supernet"
) -> tuple[Stage, Supernet]:
    """Train the supernet, or load it; watch the largest, the smallest, a dense and a random member.

    Args:
        settings: the recipe's `supernet` unless said otherwise. `name`: of the stage.
    """
    settings = settings or run.recipe.supernet
    largest = run.space.largest()
    watched = {
        "largest": largest,
        "smallest": run.space.smallest(),
        "largest dense": run.space.largest_dense(),
        "sample": run.space.sample(random.Random(settings.seed)),
    }
    inputs = run.chosen("space", "model") | settings_values(settings, name) | {"seed": settings.seed}
    rule = RULES[settings.rule]
    supernet = new_supernet(run, prepared, largest, settings.seed, run.space.decoder.mixers, rule.versions)

    def work(folder: Path) -> None:
        result = fit(run, prepared, name, supernet, rule.make(run.space), settings, folder, watched)
        if is_first_process():
            write_json(folder / "training.json", training_facts(result))

    formerly = former_values(settings, name)
    stage = run.folder.stage(
        name, inputs, work, after=[prepared.stage], formerly=formerly, all_processes=True
    )
    fit(run, prepared, name, supernet, rule.make(run.space), settings, stage.folder, watched)
    return stage, supernet
