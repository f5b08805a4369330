"""The stages `finals-NAME`: the best candidates of a search race by real training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

from automoe.design.architecture import Architecture
from automoe.processes import is_first_process
from automoe.run.context import Run
from automoe.run.folder import Stage, read_stage_json
from automoe.run.prepare import Prepared
from automoe.run.search import Found
from automoe.run.train import Training, training_inputs
from automoe.search.race import Judged, plan_rungs, race
from automoe.storage import write_json
from automoe.training.results import TrainingDiverged


def run_finals(run: Run, prepared: Prepared, system: str, found: Found) -> tuple[Stage, Architecture] | None:
    """The finalist whose training goes best; None where there are no finals, or one finalist.

    The finalists train as every system does, on the same batches; `race.json` has every judgement. The
    winner's training is continued by the stage that trains the system.
    """
    finals, finalists = run.recipe.finals, found.finalists
    if finals is None:
        return None
    if len(finalists) == 1:
        run.reporter.say(f"finals {system}: one finalist only, which wins without a race")
        return None
    rungs = plan_rungs(len(finalists), run.recipe.training.steps, finals.price)
    inputs = {
        **training_inputs(run),
        "finalists": [finalist.to_dict() for finalist in finalists],
        "rungs": [dataclasses.asdict(rung) for rung in rungs],
    }

    def work(folder: Path) -> None:
        seconds: dict[int, float] = {}

        def judge(architecture: Architecture, step: int) -> float | None:
            title = f"finals {system}: {finalists.index(architecture) + 1}"
            try:
                judgement = Training(run, prepared, architecture).until(title, step)
            except TrainingDiverged as error:
                run.reporter.say(f"{title} leaves: {error.summary}")
                return None
            seconds[finalists.index(architecture)] = judgement.seconds
            loss = judgement.validation["valid"]
            if not math.isfinite(loss):
                run.reporter.say(f"{title} leaves: its loss at step {step:,} is {loss}")
                return None
            return loss

        def heard(judged: Judged) -> None:
            loss = "diverged" if judged.loss is None else f"{judged.loss:.4f}"
            place = finalists.index(judged.architecture) + 1
            run.reporter.say(
                f"finals {system}: {place}. at step {judged.step:,}: {loss}  {judged.architecture}"
            )

        result = race(finalists, rungs, judge, heard)
        if is_first_process():
            write_json(
                folder / "race.json",
                {
                    "winner": result.winner.to_dict(),
                    "finalists": [finalist.to_dict() for finalist in finalists],
                    "judged": [
                        {"finalist": finalists.index(j.architecture), "step": j.step, "loss": j.loss}
                        for j in result.judged
                    ],
                    "lost_steps": result.lost_steps,
                    "steps": run.recipe.training.steps,
                    "seconds": {str(finalist): seconds[finalist] for finalist in sorted(seconds)},
                },
            )

    stage = run.folder.stage(
        f"finals-{system}",
        inputs,
        work,
        after=[prepared.stage],
        led_by=[found.stage],
        formerly=run.formerly("training"),
        all_processes=True,
    )
    return stage, Architecture.from_dict(read_stage_json(stage.folder / "race.json")["winner"])


def forget_losers(
    run: Run, prepared: Prepared, found: Iterable[Found], winners: Iterable[Architecture]
) -> None:
    """Delete what the trainings of finalists that won no race would continue from."""
    kept = set(winners)
    for finalist in {finalist for search in found for finalist in search.finalists} - kept:
        Training(run, prepared, finalist).forget_checkpoints()
