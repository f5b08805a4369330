"""What decides a search's result, and how candidates are ranked by BLEU."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from automoe.progress import Reporter
from automoe.run import search, systems
from automoe.run.budget import Budget, find_budget
from automoe.run.context import Run
from automoe.run.device_profile import find_latency_file
from automoe.run.folder import Stage
from automoe.run.recipe import load_recipe
from automoe.run.search import search_architectures
from automoe.search.log import SearchName
from automoe.storage import file_digest, write_json
from helpers.tiny_run import write_tiny_recipe

PROTOCOL = {
    "backend": "torch", "precision": "float32", "threads": 1, "beam_size": 2, "source_length": 5,
    "target_length": 5, "vocabulary_size": 24, "norm": "pre",
}  # fmt: skip


class Recorder:
    """Stands for a run's folder: every stage is done before, and its inputs are remembered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inputs: dict[str, object] = {}

    def stage(self, name, inputs, work, all_processes=False) -> Stage:
        self.inputs[name] = json.loads(json.dumps(inputs))
        for file in ("chosen.json", "constraints.json"):
            write_json(self.path / name / file, {})
        write_json(self.path / name / "device.json", "made")
        return Stage(self.path / name, f"of {name}")


def stage_inputs(recipe: Path, *overrides: str) -> Recorder:
    loaded = load_recipe(recipe, overrides)
    folder = Recorder(recipe.parent / "run")
    run = Run(loaded.recipe, loaded.space, folder, Reporter())
    budget = find_budget(run, find_latency_file(run))
    search_architectures(run, None, Stage(folder.path / "supernet", "of supernet"), None, budget)
    return folder


@pytest.mark.parametrize("bounded", [False, True])
def test_the_inputs_are_those_that_finished_run_folders_were_made_with(tmp_path, bounded):
    recipe = write_tiny_recipe(tmp_path, constraints="{latency_ms: 80%}" if bounded else "{flops: 90%}")
    folder = stage_inputs(recipe)
    space = repr(load_recipe(recipe).space)
    file = file_digest(folder.path / "profile" / "device.json") if bounded else None
    latency = [PROTOCOL, "profile" if bounded else None, None, file]
    sections = {
        "model": {"norm": "pre", "dropout": 0.1},
        "search": {
            "rank_by": "loss",
            "sentences": 40,
            "algorithm": {
                "iterations": 2, "population": 6, "parents": 3,
                "mutations": 3, "mutation_probability": 0.3, "crossovers": 3,
            },
            "constraints": {"latency_ms": "80%"} if bounded else {"flops": "90%"},
            "seed": 1,
        },
    }  # fmt: skip
    profile = {"profile": [space, PROTOCOL]} if bounded else {}
    assert folder.inputs == profile | {
        "budget": [space, sections, latency, True],
        "search": ["of supernet", "of budget", latency, 10, ["automoe", "hat", "random"]],
    }


@pytest.mark.parametrize(
    "override", ["translation.length_penalty=0.9", "translation.min_length=1", "data.target_language=fr"]
)
@pytest.mark.parametrize("rank_by", ["loss", "bleu"])
def test_how_is_translated_decides_a_search_that_ranks_by_bleu(tmp_path, rank_by, override):
    recipe = write_tiny_recipe(tmp_path)
    ranked = f"search.rank_by={rank_by}"
    before = stage_inputs(recipe, ranked).inputs["search"]
    after = stage_inputs(recipe, ranked, override).inputs["search"]
    assert (before != after) == (rank_by == "bleu")


def test_another_way_to_find_a_system_is_another_search(tmp_path, monkeypatch):
    recipe = write_tiny_recipe(tmp_path)
    before = stage_inputs(recipe).inputs["search"]
    monkeypatch.setitem(systems.SEARCHES, "automoe", SearchName("automoe", "random", "whole"))
    by_strategy = stage_inputs(recipe).inputs["search"]
    monkeypatch.setitem(systems.SEARCHES, "automoe", SearchName("automoe", "evolution", "dense"))
    by_space = stage_inputs(recipe).inputs["search"]
    assert before != by_strategy != by_space != before
    budgets = [stage_inputs(recipe).inputs["budget"]]
    monkeypatch.undo()
    assert stage_inputs(recipe).inputs["budget"] not in budgets


def test_ranking_by_bleu_is_greedy_even_if_the_recipe_asks_for_several_translations(tmp_path, monkeypatch):
    """And what is ranked is minus the BLEU."""
    recipe = write_tiny_recipe(tmp_path)
    overrides = [
        "search.rank_by=bleu",
        "translation.n_best=2",
        "translation.length_penalty=0.9",
        "systems=[automoe]",
    ]
    loaded = load_recipe(recipe, [*overrides, "search.constraints={}"])
    asked = []

    def evaluate(model, tokenizer, pairs, language, settings):
        asked.append((len(pairs), language, settings))
        return SimpleNamespace(scores=SimpleNamespace(bleu=float(model.encoder_width)))

    monkeypatch.setattr(search, "evaluate_model", evaluate)

    class Folder(Recorder):
        def stage(self, name, inputs, work, all_processes=False):
            stage = super().stage(name, inputs, work)
            work(stage.folder)
            return stage

    folder = Folder(tmp_path / "run")
    run = Run(loaded.recipe, loaded.space, folder, Reporter())
    (folder.path / "budget").mkdir(parents=True)
    (folder.path / "budget" / "candidates.jsonl").touch()
    budget = Budget(Stage(folder.path / "budget", "of budget"), (), None)
    network = SimpleNamespace(subnetwork=lambda architecture: architecture)
    prepared = SimpleNamespace(tokenizer=None)
    _, designs = search_architectures(run, prepared, Stage(tmp_path, "of supernet"), network, budget)
    assert len(asked) > 1
    for sentences, language, settings in asked:
        assert (sentences, language) == (40, "de")
        assert (settings.beam_size, settings.n_best, settings.length_penalty) == (1, 1, 0.9)
    chosen = json.loads((folder.path / "search" / "chosen.json").read_text())["automoe"]
    assert chosen["score"] == -designs["automoe"].encoder_width
    assert (chosen["strategy"], chosen["space"]) == ("evolution", "whole")
    assert chosen["evaluated"] == len(asked)
