"""The race of a search's finalists, with trainings whose losses are made up."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.run import finals
from automoe.run.context import Run
from automoe.run.finals import run_finals
from automoe.run.folder import RunFolder, Stage
from automoe.run.recipe import load_recipe
from automoe.run.search import Found
from automoe.training.results import Judgement, TrainingDiverged
from helpers.tiny_run import Listener, write_tiny_recipe

PREPARED = SimpleNamespace(stage=Stage(Path("prepare"), "of prepare", "prepare"))
STEPS = 40


class MadeUp:
    """Stands for `Training`: the loss of finalist i after s steps is `losses[i](s)`; None diverges."""

    losses: dict[Architecture, object]
    asked: list[tuple[Architecture, int]]
    forgotten: list[Architecture]

    def __init__(self, run, prepared, architecture, settings=None) -> None:
        self.architecture = architecture

    def until(self, title: str, step: int) -> Judgement:
        self.asked.append((self.architecture, step))
        loss = self.losses[self.architecture](step)
        if loss is None:
            raise TrainingDiverged(f"training diverged at step {step - 1}: loss nan", ["train anew"])
        return Judgement(step, {"valid": loss}, target_tokens=0, seconds=0.0)

    def forget_checkpoints(self) -> None:
        self.forgotten.append(self.architecture)


@pytest.fixture
def run(tmp_path) -> Run:
    loaded = load_recipe(write_tiny_recipe(tmp_path, steps=STEPS, finals="{candidates: 4, dense: 1}"))
    listener = Listener()
    return Run(loaded, RunFolder(tmp_path / "run", "tiny", listener.say), listener).with_seed(1)


def held(run: Run, losses, monkeypatch, rng):
    """A race of as many finalists as there are losses; them, and what `run_finals` gives."""
    members: list[Architecture] = []
    while len(members) < len(losses):
        if (member := run.space.sample(rng)) not in members:
            members.append(member)
    MadeUp.losses, MadeUp.asked, MadeUp.forgotten = dict(zip(members, losses, strict=True)), [], []
    monkeypatch.setattr(finals, "Training", MadeUp)
    found = Found(Stage(Path("search"), "of search", "seed-1/search-mine"), tuple(members), {"whole": 9})
    return members, run_finals(run, PREPARED, "mine", found)


def test_the_one_finalist_wins_without_a_race(run, monkeypatch, rng):
    _, held_finals = held(run, [lambda step: 1.0], monkeypatch, rng)
    assert held_finals is None
    assert MadeUp.asked == []
    assert run.reporter.said == ["finals mine: one finalist only, which wins without a race"]
    assert not (run.folder.path / "finals-mine").exists()


def test_without_finals_nobody_races(run, tmp_path, monkeypatch, rng):
    loaded = load_recipe(tmp_path / "tiny.yaml", ["finals=off"])
    off = Run(loaded, run.folder, run.reporter)
    _, held_finals = held(off, [lambda step: 1.0, lambda step: 2.0], monkeypatch, rng)
    assert held_finals is None
    assert run.reporter.said == []


def test_who_is_best_at_the_last_rung_wins_and_keeps_its_checkpoints(run, monkeypatch, rng):
    """Four take 2 f + 2 * f + ... = 4 f = 0.6 trainings of 40 steps: f is 6 steps, the second rung 12."""
    losses = [
        lambda step: 3 - step / 100,  # the best at first, not later
        lambda step: 9.0,
        lambda step: 3.5 - step / 10,
        lambda step: 8.0,
    ]
    members, (stage, winner) = held(run, losses, monkeypatch, rng)
    assert winner == members[2]
    asked = [(members.index(architecture), step) for architecture, step in MadeUp.asked]
    assert asked == [(0, 6), (1, 6), (2, 6), (3, 6), (0, 12), (2, 12)]
    found = Found(Stage(Path("search"), "of search", "seed-1/search-mine"), tuple(members), {"whole": 9})
    finals.forget_losers(run, PREPARED, [found], [winner])
    assert set(MadeUp.forgotten) == {members[0], members[1], members[3]}
    race = json.loads((stage.folder / "race.json").read_text())
    assert race["finalists"] == [member.to_dict() for member in members]
    assert race["winner"] == winner.to_dict()
    assert race["judged"] == [
        {"finalist": finalist, "step": step, "loss": losses[finalist](step)} for finalist, step in asked
    ]
    assert (race["lost_steps"], race["steps"]) == (6 + 6 + 12, STEPS)


def test_a_finalist_whose_loss_is_no_number_leaves(run, monkeypatch, rng):
    losses = [lambda step: float("nan"), lambda step: 2.0, lambda step: 3.0, lambda step: 4.0]
    members, (_, winner) = held(run, losses, monkeypatch, rng)
    assert winner == members[1]
    assert "finals mine: 1 leaves: its loss at step 6 is nan" in run.reporter.said


def test_a_finalist_that_diverges_leaves_and_the_race_goes_on(run, monkeypatch, rng):
    losses = [lambda step: None, lambda step: 2.0, lambda step: 3.0, lambda step: None if step > 6 else 2.5]
    members, (stage, winner) = held(run, losses, monkeypatch, rng)
    assert winner == members[1]
    judged = json.loads((stage.folder / "race.json").read_text())["judged"]
    assert [(j["finalist"], j["step"], j["loss"]) for j in judged] == [
        (0, 6, None), (1, 6, 2.0), (2, 6, 3.0), (3, 6, 2.5), (1, 12, 2.0), (3, 12, None),
    ]  # fmt: skip
    assert "finals mine: 1 leaves: training diverged at step 5: loss nan" in run.reporter.said
    assert any(text.startswith("finals mine: 4. at step 12: diverged") for text in run.reporter.said)


def test_a_race_of_which_nobody_is_left_is_bad_input_that_names_them(run, monkeypatch, rng):
    with pytest.raises(InputError, match="no finalist is left") as caught:
        held(run, [lambda step: None] * 3, monkeypatch, rng)
    assert len(caught.value.problems) == 4
    assert "peak_rate" in caught.value.problems[-1]


def test_a_finished_race_is_not_held_again(run, monkeypatch, rng):
    losses = [lambda step: 2.0, lambda step: 1.0]
    state = rng.getstate()
    _, first = held(run, losses, monkeypatch, rng)
    rng.setstate(state)
    _, second = held(run, losses, monkeypatch, rng)
    assert second == first
    assert MadeUp.asked == []
    assert run.reporter.said[-1] == "seed-1/finals-mine: done before"
