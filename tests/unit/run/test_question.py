"""What a run was asked for, in words."""

from types import SimpleNamespace

import pytest

from automoe.cost.costs import constraints_of
from automoe.data.corpus import LoadReport
from automoe.run.context import Run
from automoe.run.question import dropped_pairs, what_was_asked
from automoe.run.recipe import load_recipe
from helpers.paths import RECIPES
from helpers.tiny_run import write_tiny_recipe

LOADED = {
    "train": LoadReport(kept=590, empty=1, too_long=0, unequal=2, cleaned=9, too_many_tokens=10),
    "valid": LoadReport(kept=60, empty=0, too_long=0, unequal=0, cleaned=0),
    "test": LoadReport(kept=1058, empty=0, too_long=1000, unequal=0, cleaned=0),
}


def asked(tmp_path, *overrides, bounds=None):
    loaded = load_recipe(write_tiny_recipe(tmp_path), overrides)
    bounds = bounds if bounds is not None else {"flops": 9e8}
    budget = SimpleNamespace(
        constraints={system.name: constraints_of(bounds) for system in loaded.recipe.searched}
    )
    return what_was_asked(Run(loaded, None, None), budget, LOADED)


def test_budget_space_and_data_are_told_in_words(tmp_path):
    found = asked(tmp_path)
    assert found.facts["Translation"] == "from en to de"
    assert found.facts["Data"] == (
        "590 pairs to train on (train.tsv), 60 to validate, 1,058 to test (test.tsv); a joint vocabulary of "
        "24 subwords (bpe)"
    )
    assert "automoe: GFLOPs at most 0.9, 90% of what dense has" in found.facts["Budget"]
    assert "hat (found by evolution among dense ones)" in found.facts["Systems"]
    assert "switch (a Switch Transformer)" in found.facts["Systems"]
    assert found.facts["Training"] == "40 steps of 200 target tokens with Adam; 1 seed"
    assert found.facts["Latency"] == (
        "of a sentence, 5 tokens in and 5 out, beam 2, torch float32, threads: 1"
    )
    assert found.shares["automoe"] == {"flops": 0.9}
    assert (found.source_language, found.target_language) == ("en", "de")


def test_several_bounds_and_none_and_those_of_a_system(tmp_path):
    bounds = {"latency_ms": 12.345, "throughput_sentences_s": 20.0}
    both = asked(
        tmp_path, "search.constraints={latency_ms: 12.345, throughput_sentences_s: 20}", bounds=bounds
    )
    assert both.facts["Budget"].startswith(
        "automoe: latency (ms) at most 12.3 and sentences/s at least 20.0;"
    )
    assert both.shares["automoe"] == {}
    assert asked(tmp_path, "search.constraints={}", bounds={}).facts["Budget"].startswith("automoe: no bound")


def test_without_a_search_there_is_no_budget_to_tell(tmp_path):
    found = asked(tmp_path, "systems=[{name: dense, architecture: largest-dense}]", "fine_tuning=null")
    assert not {"Budget", "Space", "Search"} & found.facts.keys()
    assert found.budgets == {}


def test_shares_are_of_the_reference_only_where_that_is_the_baseline(tmp_path):
    found = asked(
        tmp_path, "systems=[{name: automoe, search: evolution}]", "baseline=null", "fine_tuning=null"
    )
    assert found.shares == {}
    assert "90% of what the largest dense Transformer has" in found.facts["Budget"]


@pytest.mark.parametrize(
    ("recipe", "size"), [("debian-docs-en-de", None), ("wmt14-en-de", None), ("demo", "4.6e15")]
)
def test_a_space_of_any_size_has_a_number(recipe, size):
    loaded = load_recipe(RECIPES / f"{recipe}.yaml")
    budget = SimpleNamespace(constraints={system.name: () for system in loaded.recipe.searched})
    told = what_was_asked(Run(loaded, None, None), budget, LOADED).facts["Space"].split(" ")[0]
    exact = loaded.space.size()
    assert float(told) == pytest.approx(exact, rel=0.1)
    assert size is None or told == size


def test_dropped_pairs_are_told_with_numbers_by_reason():
    assert dropped_pairs(LOADED) == [
        "train: 590 of 603 pairs (dropped: 1 with an empty side, 2 over limits.max_length_ratio, 10 over "
        "max_tokens).",
        "test: 1,058 of 2,058 pairs (dropped: 1,000 over limits.max_characters); every score is of these.",
    ]
