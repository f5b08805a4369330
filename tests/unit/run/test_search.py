"""What decides a search's result, how many candidates it scores, and how they are ranked by BLEU."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from automoe.cost.counting import count
from automoe.design.architecture import dense
from automoe.design.architecture_file import save_architecture
from automoe.design.space import load_space
from automoe.progress import Reporter
from automoe.run import scoring, search
from automoe.run.budget import find_budget
from automoe.run.context import Run
from automoe.run.device_profile import find_latency_file
from automoe.run.folder import Stage
from automoe.run.recipe import load_recipe
from automoe.run.search import Found, search_architectures
from automoe.storage import write_json
from helpers.paths import REPOSITORY
from helpers.tiny_run import Listener, write_tiny_recipe

SEARCHES = {"search-automoe", "search-hat", "search-random"}


class Recorder:
    """Stands for a run's folder: every stage is done before, and its inputs are remembered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.inputs: dict[str, object] = {}

    def part(self, name: str) -> "Recorder":
        return self

    def stage(self, name, inputs, work, **builds_on) -> Stage:
        self.inputs[name] = json.loads(json.dumps(inputs))
        write_json(self.path / name / "chosen.json", {"finalists": [], "evaluated": {"whole": 3}})
        if name == "budget":
            (self.path / name / "baseline.json").unlink(missing_ok=True)
            work(self.path / name)
        write_json(self.path / name / "device.json", "made")
        return Stage(self.path / name, f"of {name}", name)


def stage_inputs(recipe: Path, *overrides: str) -> dict[str, object]:
    """What decides each stage up to the searches."""
    loaded = load_recipe(recipe, overrides)
    folder = Recorder(recipe.parent / "run")
    run = Run(loaded, folder, Reporter())
    budget = find_budget(run, find_latency_file(run))
    supernet = Stage(folder.path / "supernet", "of supernet", "seed-1/supernet")
    search_architectures(run.with_seed(loaded.recipe.seeds[0]), None, supernet, None, budget)
    return folder.inputs


def systems(**changes: str) -> str:
    """The searched systems as an override, some of them with other values."""
    plain = {
        "automoe": "search: evolution",
        "hat": "search: evolution, experts: dense",
        "random": "search: random",
    } | changes
    fixed = "{name: dense, architecture: largest-dense}, {name: thin, architecture: thin.yaml}"
    return f"systems=[{fixed}, {', '.join(f'{{name: {n}, {text}}}' for n, text in plain.items())}]"


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("search.sentences=30", SEARCHES),
        ("search.algorithm.population=7", SEARCHES),
        ("search.own_steps={steps: 3}", SEARCHES),
        ("finals={candidates: 3}", SEARCHES),
        ("training.steps=39", set()),  # without own steps
        ("finals={candidates: 3, price: 0.9}", SEARCHES),  # finals at all
        ("seeds=[2]", SEARCHES),
        ("search.constraints={flops: 80%}", SEARCHES | {"budget"}),
        ("baseline=thin", SEARCHES | {"budget"}),  # its share is another number
        ("model.norm=post", SEARCHES | {"budget"}),
        ("latency.beam_size=3", SEARCHES | {"budget"}),
        ("fine_tuning=null", set()),
        ("translation.beam_size=3", set()),
        ("search.rank_by=loss", set()),
        ("data.target_language=fr", set()),
        ("training.checkpoint_every=3", set()),
        ("model.dropout=0.2", set()),  # the supernet's alone
        # No bound is on what is measured.
        ("latency.threads=1", set()),
        ("latency.runs=20", set()),
        ("latency.batch=4", set()),
        ("latency.backend=onnx", set()),
        (
            systems(hat="search: evolution, experts: dense, constraints: {flops: 80%}"),
            {"budget", "search-hat"},
        ),
        (systems(hat="search: evolution"), {"budget", "search-hat"}),
        (systems(random="search: evolution"), {"search-random"}),
        (systems(other="architecture: uniform"), set()),
        (systems(other="search: evolution, constraints: {}"), {"budget", "search-other"}),
    ],
)
def test_what_decides_a_search_and_nothing_else_starts_it_again(tmp_path, override, changed):
    recipe = write_tiny_recipe(tmp_path)
    save_architecture(replace(dense(32, 64, 2, 2, 1), qkv_dim=32), tmp_path / "thin.yaml")
    recipe.write_text(recipe.read_text().replace("systems:", f"{systems().replace('=', ': ')}\nunused:"))
    text, _, _ = recipe.read_text().partition("unused:")
    recipe.write_text(text + "baseline: dense\nlatency: {source_length: 5, target_length: 5, beam_size: 2}\n")
    before, after = stage_inputs(recipe), stage_inputs(recipe, override)
    assert {name for name in after if after[name] != before.get(name)} == changed


def test_another_space_in_the_same_file_is_another_search(tmp_path):
    recipe = write_tiny_recipe(tmp_path)
    toy = yaml.safe_load((REPOSITORY / "recipes" / "spaces" / "copy-toy.yaml").read_text())
    mine = "systems=[{name: mine, search: evolution, space: mine.yaml}]"
    found = []
    for widths in ([24], [32]):
        toy["encoder"]["widths"] = widths
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(toy))
        found.append(stage_inputs(recipe, mine, "baseline=null")["search-mine"])
    assert found[0] != found[1]


def test_objectives_decide_the_search_that_has_them_and_no_other(tmp_path):
    recipe = write_tiny_recipe(tmp_path)

    def inputs(mine: str, source: str = "profile") -> dict:
        listed = f"systems=[{{name: mine, {mine}}}, {{name: other, search: evolution, experts: dense}}]"
        return stage_inputs(recipe, listed, "baseline=null", f"latency.source={source}")

    before = inputs("search: nsga2")
    assert before["search-mine"]["systems.mine.objectives"] == ["loss", "flops"]
    assert not any("objectives" in name for name in before["search-other"])
    assert inputs("search: nsga2, objectives: [loss, flops]") == before
    after = inputs("search: nsga2, objectives: [loss, memory_bytes]")
    assert {name for name in after if after[name] != before[name]} == {"search-mine"}
    # One that is measured is priced, which concerns every search of the run.
    unpriced = inputs("search: nsga2", "measurement")
    priced = inputs("search: nsga2, objectives: [loss, latency_ms]", "measurement")
    for name in ("budget", "search-mine", "search-other"):
        assert "latency.search_runs" in priced[name]
        assert "latency.search_runs" not in unpriced[name]


@pytest.mark.parametrize(
    "override", ["translation.length_penalty=0.9", "translation.min_length=1", "data.target_language=fr"]
)
@pytest.mark.parametrize("rank_by", ["loss", "bleu"])
def test_how_is_translated_decides_a_search_that_ranks_by_bleu(tmp_path, rank_by, override):
    recipe = write_tiny_recipe(tmp_path)
    ranked = f"search.rank_by={rank_by}"
    before, after = stage_inputs(recipe, ranked), stage_inputs(recipe, ranked, override)
    assert (before["search-hat"] != after["search-hat"]) == (rank_by == "bleu")


class Working(Recorder):
    """Every stage does its work."""

    def stage(self, name, inputs, work, **builds_on) -> Stage:
        (self.path / name).mkdir(parents=True, exist_ok=True)
        work(self.path / name)
        return Stage(self.path / name, f"of {name}", name)


def searched(
    recipe: Path, *overrides: str, prepared=None, supernet=None
) -> tuple[dict[str, Found], list[str]]:
    """What every search of a recipe finds, and what the user is told; the supernet need not be trained."""
    loaded = load_recipe(recipe, overrides)
    listener = Listener()
    run = Run(loaded, Working(recipe.parent / "run"), listener)
    budget = find_budget(run, find_latency_file(run))
    stage = Stage(recipe.parent, "of supernet", "seed-1/supernet")
    return search_architectures(run.with_seed(1), prepared, stage, supernet, budget), listener.said


def chosen(found: Found) -> dict:
    return json.loads((found.stage.folder / "chosen.json").read_text())


def entries(found: Found) -> list[dict]:
    return [json.loads(line) for line in (found.stage.folder / "candidates.jsonl").read_text().splitlines()]


@pytest.fixture
def by_width(monkeypatch) -> None:
    """Scores candidates without a network: the wider the better."""

    def score(run, supernet, prepared):
        return lambda a: -float(a.encoder_width + a.decoder_width) - sum(x.ffn_sizes[0] for x in a.encoder)

    monkeypatch.setattr(search, "inherited_score", score)


@pytest.mark.parametrize("finals", ["off", "{candidates: 3, dense: 1}"])
def test_a_random_search_scores_as_many_as_the_evolution_beside_it(tmp_path, by_width, finals):
    """In each part of the space; a search under other constraints is not beside it."""
    recipe = write_tiny_recipe(tmp_path, finals=finals)
    names = {
        "mine": "search: evolution",
        "random": "search: random",
        "other": "search: random, constraints: {flops: 80%}",
    }
    listed = ", ".join(f"{{name: {name}, {text}}}" for name, text in names.items())
    # A stubborn evolution, which finds fewer than it might.
    found, _ = searched(
        recipe, f"systems=[{listed}]", "baseline=null", "search.algorithm.mutation_probability=0"
    )
    scored = {
        name: {
            part: sum(
                e["score"] is not None and (e["system"], e["space"]) == (name, part) for e in entries(f)
            )
            for part in ("whole", "dense")
        }
        for name, f in found.items()
    }
    assert scored["mine"]["whole"] < 18
    assert (scored["mine"]["dense"] > 0) == (finals != "off")
    assert found["random"].evaluated["whole"] == found["mine"].evaluated["whole"] < 18
    assert found["random"].evaluated == found["mine"].evaluated
    assert found["other"].evaluated["whole"] == 18
    assert scored["random"]["whole"] == scored["mine"]["whole"]


@pytest.mark.parametrize("candidates", [2, 5])
def test_finalists_are_the_best_and_dense_ones_among_them(tmp_path, by_width, candidates):
    recipe = write_tiny_recipe(
        tmp_path, finals=f"{{candidates: {candidates}, dense: 1, min_distance: 0, per_shape: 5}}"
    )
    mine = "systems=[{name: mine, search: evolution}]"
    found, _ = searched(recipe, mine, "baseline=null")
    mine = found["mine"]
    scores = {e["description"]: e["score"] for e in entries(mine) if e["score"] is not None}

    def is_dense(a) -> bool:
        return all(len(layer.experts) == 1 for layer in (*a.encoder, *a.decoder))

    assert len(mine.finalists) == candidates
    assert any(map(is_dense, mine.finalists))
    best = sorted(scores.values())
    found_scores = [scores[str(a)] for a in mine.finalists]
    assert found_scores[:-1] == best[: candidates - 1]  # the last place may be the dense one's
    assert [f["inherited_score"] for f in chosen(mine)["finalists"]] == found_scores
    assert chosen(mine)["rejected"] == []


@pytest.mark.parametrize("heads", [[2], [2, 4]])
def test_fewer_feasible_candidates_than_finalists_are_all_of_them(tmp_path, by_width, heads):
    """The budget leaves the smaller FFN, and every number of heads, which cost nothing."""
    stack = {"widths": [24], "layer_counts": [1], "self_attention_heads": [2], "ffn_sizes": [32, 64]}
    encoder = stack | {"self_attention_heads": heads}
    space = {"qkv_dim": 32, "encoder": encoder, "decoder": stack | {"cross_attention_heads": [2]}}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(space))
    recipe = write_tiny_recipe(tmp_path, finals="{candidates: 4, dense: 1}")
    smallest = load_space(tmp_path / "few.yaml").smallest()
    least = count(smallest, load_recipe(recipe).recipe.protocol()).parameters
    bound = f"search.constraints={{parameters: {least}}}"
    mine = "systems=[{name: mine, search: evolution}]"
    found, _ = searched(recipe, f"space={tmp_path / 'few.yaml'}", mine, bound, "baseline=null")
    assert set(found["mine"].finalists) == {
        replace(smallest, encoder=(replace(smallest.encoder[0], self_attention_heads=number),))
        for number in heads
    }
    assert len(found["mine"].finalists) == len(heads)


def test_the_best_are_ranked_again_by_steps_of_their_own(tmp_path, by_width, monkeypatch):
    """Own steps turn the order round, here; the inherited score is kept beside the new one."""
    asked = []

    def own(run, supernet, prepared, settings, journal):
        def score(architecture):
            asked.append(architecture)
            return float(len(asked))

        assert (settings.steps, settings.candidates) == (3, 4)
        return lambda architecture: -score(architecture)

    monkeypatch.setattr(search, "own_score", own)
    recipe = write_tiny_recipe(tmp_path, own_steps="{steps: 3, candidates: 4}")
    found, _ = searched(recipe, "systems=[{name: mine, search: evolution}]", "baseline=null")
    best = sorted((e["score"], e["description"]) for e in entries(found["mine"]) if e["score"] is not None)
    assert len(asked) == 4
    assert sorted(e[0] for e in best[:4]) == sorted(
        next(score for score, name in best if name == str(a)) for a in asked
    )
    assert found["mine"].finalists == (asked[-1],)
    (winner,) = chosen(found["mine"])["finalists"]
    assert winner["score"] == -4.0
    assert winner["inherited_score"] == next(score for score, name in best if name == str(asked[-1]))


def test_ranking_by_bleu_is_greedy_even_if_the_recipe_asks_for_several_translations(tmp_path, monkeypatch):
    """And what is ranked is minus the BLEU."""
    recipe = write_tiny_recipe(tmp_path)
    asked = []

    def evaluate(model, tokenizer, pairs, language, settings):
        asked.append((len(pairs), language, settings))
        return SimpleNamespace(scores=SimpleNamespace(bleu=float(model.encoder_width)))

    monkeypatch.setattr(scoring, "evaluate_model", evaluate)
    found, said = searched(
        recipe,
        "search.rank_by=bleu",
        "translation.n_best=2",
        "translation.length_penalty=0.9",
        "systems=[{name: automoe, search: evolution}]",
        "baseline=null",
        "search.constraints={}",
        prepared=SimpleNamespace(tokenizer=None),
        supernet=SimpleNamespace(subnetwork=lambda architecture: architecture),
    )
    assert len(asked) > 1
    for sentences, language, settings in asked:
        assert (sentences, language) == (40, "de")
        assert (settings.beam_size, settings.n_best, settings.length_penalty) == (1, 1, 0.9)
    (design,) = found["automoe"].finalists
    (record,) = chosen(found["automoe"])["finalists"]
    assert record["score"] == record["inherited_score"] == -design.encoder_width
    assert chosen(found["automoe"])["strategy"] == "evolution"
    assert chosen(found["automoe"])["evaluated"] == {"whole": len(asked)}
    assert said[-1] == f"search automoe: 1. {-design.encoder_width:.3f} with {design}"
