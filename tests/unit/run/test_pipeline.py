"""Runs of a tiny recipe in this process: what seeds, systems and finals share, and what they do not."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from automoe.design.architecture import Architecture
from automoe.design.architecture_file import save_architecture
from automoe.run.context import Run
from automoe.run.folder import RunFolder
from automoe.run.prepare import prepare
from automoe.run.recipe import load_recipe
from automoe.run.train import Training
from automoe.training.history import read_history
from helpers.tiny_run import Listener, run_here, write_tiny_recipe

pytestmark = pytest.mark.slow

STEPS = 16
FINALS = "finals={candidates: 3, dense: 1}"
SYSTEMS = (
    "{name: mine, search: evolution}, {name: dense, architecture: largest-dense},"
    "{name: hat, search: evolution, experts: dense}"
)


def run_tiny(recipe: Path, *overrides: str, overwrite: bool = False) -> list[str]:
    """Up to the trainings, without fine-tuning; what the run said."""
    systems = f"systems=[{SYSTEMS}]"
    return run_here(recipe, "fine_tuning=null", systems, *overrides, until="train", overwrite=overwrite)


def copied(folder: Path, tmp_path: Path) -> Path:
    """The recipe of a copy of a run that may be changed."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy" / "tiny.yaml"


def weights(folder: Path) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in load_file(folder / "weights.safetensors").items()}


def race(seed: Path, system: str = "mine") -> dict[str, Any]:
    plain = json.loads((seed / f"finals-{system}" / "race.json").read_text())
    del plain["seconds"]
    return plain


def finalists(seed: Path, system: str = "mine") -> list[Any]:
    """With their scores."""
    found = json.loads((seed / f"search-{system}" / "chosen.json").read_text())["finalists"]
    return [(finalist["architecture"], finalist["score"]) for finalist in found]


def model_weights(seed: Path, system: str) -> dict[str, Any]:
    """Of a trained system."""
    file = seed / f"train-{system}" / "model" / "model.safetensors"
    return {name: tensor.tolist() for name, tensor in load_file(file).items()}


def stages(said: list[str], prefix: str) -> dict[str, str]:
    """What became of the stages of one seed: starts, continues or done before."""
    lines = [line.removeprefix(prefix) for line in said if line.startswith(prefix)]
    return dict(line.split(": ") for line in lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run with finals."""
    folder = tmp_path_factory.mktemp("finished")
    run_tiny(write_tiny_recipe(folder, steps=STEPS), FINALS)
    return folder


@pytest.fixture(scope="module")
def two_seeds(finished, tmp_path_factory) -> tuple[Path, list[str]]:
    """The same with a second seed, run later; what was said then."""
    recipe = copied(finished, tmp_path_factory.mktemp("two"))
    return recipe.parent, run_tiny(recipe, FINALS, "seeds=[1, 2]")


def test_another_seed_leaves_what_the_first_one_made(finished, two_seeds):
    _, said = two_seeds
    first, second = stages(said, "seed-1/"), stages(said, "seed-2/")
    assert set(first.values()) == {"done before"}
    assert set(second.values()) == {"starts"}
    assert first.keys() == second.keys()
    assert {"supernet", "search-mine", "finals-mine", "train-mine", "train-dense", "train-hat"} <= set(first)
    assert stages(said, "budget")[""] == "done before"


def test_two_seeds_differ_in_everything_random(two_seeds):
    run = two_seeds[0] / "runs" / "tiny"
    one, two = run / "seed-1", run / "seed-2"
    assert weights(one / "supernet") != weights(two / "supernet")
    assert model_weights(one, "dense") != model_weights(two, "dense")
    assert finalists(one) != finalists(two)


def test_a_seed_gives_the_same_whether_others_ran_before_it_or_not(two_seeds, tmp_path):
    run_tiny(write_tiny_recipe(tmp_path, steps=STEPS), FINALS, "seeds=[2]")
    alone, beside = (folder / "runs" / "tiny" / "seed-2" for folder in (tmp_path, two_seeds[0]))
    assert not (tmp_path / "runs" / "tiny" / "seed-1").exists()
    assert weights(alone / "supernet") == weights(beside / "supernet")
    for system in ("mine", "hat"):
        assert finalists(alone, system) == finalists(beside, system)
        assert race(alone, system) == race(beside, system)
    for system in ("mine", "dense", "hat"):
        assert model_weights(alone, system) == model_weights(beside, system)


def test_other_systems_leave_those_that_were_there(finished, tmp_path):
    """One searched, one trained for the minutes of another, whose number of steps is kept."""
    recipe = copied(finished, tmp_path)
    more = "{name: random, search: random}, {name: switch, architecture: uniform, minutes_of: hat}"
    more = f"systems=[{SYSTEMS}, {more}]"
    became = stages(run_tiny(recipe, FINALS, more), "seed-1/")
    fresh = {"search-random", "finals-random", "train-random", "train-switch"}
    assert {name for name, what in became.items() if what == "starts"} == fresh
    assert {what for name, what in became.items() if name not in fresh} == {"done before"}

    seed = recipe.parent / "runs" / "tiny" / "seed-1"
    counts = [
        json.loads((seed / f"search-{name}" / "chosen.json").read_text())["evaluated"]
        for name in ("mine", "random")
    ]
    assert counts[0] == counts[1]
    kept = json.loads((seed / "train-switch" / "steps.json").read_text())
    seconds = json.loads((seed / "train-hat" / "training.json").read_text())["seconds"]
    assert kept["steps"] == max(1, round(seconds / kept["seconds_a_step"]))
    switch = json.loads((seed / "train-switch" / "training.json").read_text())
    assert len(read_history(seed / "train-switch" / switch["history"])) == kept["steps"]
    assert stages(run_tiny(recipe, FINALS, more), "seed-1/")["train-switch"] == "done before"


def test_the_winners_training_goes_on_to_the_weights_of_one_that_never_raced(finished, tmp_path):
    seed = finished / "runs" / "tiny" / "seed-1"
    winner = Architecture.from_dict(race(seed)["winner"])
    save_architecture(winner, tmp_path / "winner.yaml")
    recipe = write_tiny_recipe(tmp_path, steps=STEPS)
    run_tiny(recipe, "systems=[{name: alone, architecture: winner.yaml}]", "baseline=alone")
    alone = tmp_path / "runs" / "tiny" / "seed-1"
    assert not (alone / "supernet").exists()
    assert model_weights(alone, "alone") == model_weights(seed, "mine")
    facts = json.loads((seed / "train-mine" / "training.json").read_text())
    history = (seed / "train-mine" / facts["history"]).resolve()
    assert [record["step"] for record in read_history(history)] == [*range(1, STEPS + 1)]
    # The race was a part of this very training.
    rungs = {judged["step"] for judged in race(seed)["judged"]}
    assert {path.name for path in history.glob("judged-*.json")} == {f"judged-{s:08d}.json" for s in rungs}


def test_what_raced_goes_on_when_it_is_validated_at_other_steps(finished, tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=STEPS)
    systems = f"systems=[{SYSTEMS}]"
    run_here(recipe, FINALS, "fine_tuning=null", systems, until="finals")
    device = "cpu" if torch.cuda.is_available() else "auto"
    otherwise = ["training.validate_every=3", f"training.device={device}", "supernet.validate_every=5"]
    became = stages(run_tiny(recipe, FINALS, *otherwise), "seed-1/")
    assert {became[name] for name in ("supernet", "search-mine", "finals-mine")} == {"done before"}
    seed, whole = (folder / "runs" / "tiny" / "seed-1" for folder in (tmp_path, finished))
    for system in ("mine", "hat"):
        assert race(seed, system) == race(whole, system)
        assert model_weights(seed, system) == model_weights(whole, system)
    facts = json.loads((seed / "train-mine" / "training.json").read_text())
    history = read_history(seed / "train-mine" / facts["history"])
    assert [record["step"] for record in history] == [*range(1, STEPS + 1)]
    last_rung = max(judged["step"] for judged in race(seed)["judged"])
    validated = [record["step"] for record in history if "validation/valid" in record]
    assert validated == [step for step in range(last_rung + 1, STEPS) if step % 3 == 0] + [STEPS]


def test_finals_in_a_run_whose_best_candidate_is_trained_already_end_as_in_a_new_run(finished, tmp_path):
    recipe = write_tiny_recipe(tmp_path, steps=STEPS)
    run_tiny(recipe, "finals=off")
    seed = tmp_path / "runs" / "tiny" / "seed-1"
    trained = {path.parent.name for path in seed.glob("trainings/*/weights.safetensors")}
    assert not (seed / "finals-mine").exists()
    became = stages(run_tiny(recipe, FINALS, overwrite=True), "seed-1/")
    assert (became["supernet"], became["train-dense"]) == ("done before", "done before")
    assert {path.parent.name for path in seed.glob("trainings/*/weights.safetensors")} >= trained
    never_off = finished / "runs" / "tiny" / "seed-1"
    for system in ("mine", "hat"):
        assert race(seed, system) == race(never_off, system)
        assert model_weights(seed, system) == model_weights(never_off, system)
    assert any(seed.glob("trainings/*-again/judged-*.json"))


def test_a_training_that_is_past_a_step_is_judged_there_by_another_one(finished, tmp_path):
    """As two races do that share a finalist and have other rungs: the same losses in every order."""
    recipe = copied(finished, tmp_path)
    loaded = load_recipe(recipe, ["fine_tuning=null"])
    folder = RunFolder(recipe.parent / "runs" / "tiny", "tiny", print)
    run = Run(loaded, folder, Listener())
    prepared, member = prepare(run), run.space.smallest()

    def judged(name: str, *steps: int) -> dict[int, float]:
        seeded = dataclasses.replace(run, folder=folder.part(name)).with_seed(1)
        return {s: Training(seeded, prepared, member).until("race", s).validation["valid"] for s in steps}

    rising = judged("rising", 2, 4, 8)
    assert judged("falling", 8, 4, 2) == rising
    assert judged("mixed", 4, 2, 8) == rising
    assert len(set(rising.values())) == 3
