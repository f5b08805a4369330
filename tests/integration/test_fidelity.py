"""`automoe fidelity` on a tiny recipe: its figures against ones computed apart, and its work in shares."""

import json

import pytest
import torch
from scipy.stats import kendalltau

from automoe.data.batching import TokenisedCorpus, fixed_batches
from automoe.data.tokenizer import Tokenizer
from automoe.design.architecture import Architecture
from automoe.errors import InputError
from automoe.model.sharing import Supernet
from automoe.progress import Reporter
from automoe.run.fidelity import Study, at_equal_compute, study_fidelity
from automoe.run.recipe import load_recipe
from automoe.training.checkpoint import load_weights
from automoe.training.objective import validation_loss
from automoe.training.settings import SupernetSettings
from helpers.tiny_run import write_tiny_recipe

EARLY = 20  # the tiny recipe validates there; its trainings have 40 steps
STUDY = Study(members=5, rules=("random", "sandwich"), own_steps=(0, 3))


class Silent(Reporter):
    def say(self, message):
        pass

    def bar(self, title):
        return lambda done, planned, text: None


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fidelity")
    loaded = load_recipe(write_tiny_recipe(folder), ["supernet.rule=random"])
    return loaded, study_fidelity(loaded, folder / "runs", Silent(), STUDY)


def figures(result):
    return json.loads((result / "fidelity.json").read_text())


def test_the_result_has_table_picture_and_every_member(studied):
    _, result = studied
    found = figures(result)
    assert {path.name for path in result.iterdir()} >= {"fidelity.md", "fidelity.png", "members.jsonl"}
    assert len(found["members"]) == 5
    assert [(r["rule"], r["own_steps"]) for r in found["results"]] == [
        ("random", 0), ("random", 3), ("sandwich", 0), ("sandwich", 3), ("from scratch", EARLY),
    ]  # fmt: skip
    for row in found["results"]:
        own = [member["loss"] for member in found["members"]]
        there = [member["losses"][f"{row['rule']}-{row['own_steps']}"] for member in found["members"]]
        assert row["all"]["kendall_tau"] == pytest.approx(kendalltau(own, there).statistic)


def test_own_trainings_are_judged_in_their_middle_too(studied):
    _, result = studied
    early = set()
    for history in (result.parent / "trainings").glob("*/history.jsonl"):
        records = [json.loads(line) for line in history.read_text().splitlines()]
        early.add(next(r["validation/valid"] for r in records if r["step"] == EARLY))
    members = figures(result)["members"]
    assert {member["losses"][f"from scratch-{EARLY}"] for member in members} == early
    assert all(member["losses"][f"from scratch-{EARLY}"] != member["loss"] for member in members)


def test_inherited_losses_are_those_of_the_supernets_blocks(studied):
    loaded, result = studied
    seed = result.parent
    tokenizer = Tokenizer.load(seed.parent / "prepare" / "tokenizer.json")
    supernet = Supernet(loaded.space.largest(), tokenizer.vocabulary_size, norm="pre")
    valid = TokenisedCorpus.load(seed.parent / "prepare" / "valid")
    batches = fixed_batches(valid, 800, range(40))  # search.sentences
    for rule, stage in (("random", "supernet"), ("sandwich", "supernet-sandwich")):
        load_weights(seed / stage / "weights.safetensors", supernet.network)
        for member in figures(result)["members"]:
            model = supernet.extract(Architecture.from_dict(member["architecture"]))
            assert validation_loss(model, batches) == pytest.approx(member["losses"][f"{rule}-0"], abs=1e-5)


def test_in_shares_it_comes_to_the_same(studied, tmp_path):
    loaded, result = studied
    for index in (2, 1):
        assert study_fidelity(loaded, tmp_path, Silent(), STUDY, (index, 2)) is None
    shared = study_fidelity(loaded, tmp_path, Silent(), STUDY)
    assert not (shared / "members.jsonl").exists()  # the shares had left nothing to do
    assert figures(shared) == figures(result)


def test_done_before_it_trains_nothing(studied, monkeypatch):
    loaded, result = studied
    before = figures(result)
    monkeypatch.setattr(torch.Tensor, "backward", None)
    assert study_fidelity(loaded, result.parents[2], Silent(), STUDY) == result
    assert figures(result) == before


def test_rules_are_compared_at_as_many_updates_of_a_member():
    random = SupernetSettings(steps=1000, peak_rate=1e-3, warmup_steps=100, rule="random")
    sandwich = at_equal_compute(random, "sandwich")
    assert (sandwich.steps, sandwich.warmup_steps, sandwich.rule) == (250, 25, "sandwich")
    assert at_equal_compute(sandwich, "random") == random


def test_an_impossible_study_is_one_message():
    with pytest.raises(InputError) as caught:
        Study(members=1, rules=("lottery",), own_steps=(-1,))
    assert len(caught.value.problems) == 3
    assert (
        "unknown rule 'lottery' (known: random, sandwich, balanced, half_dense, mixture_of_supernets)"
        in str(caught.value)
    )
