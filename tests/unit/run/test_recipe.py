"""What a recipe may say; what the command line makes of mistakes is seen in test_bad_input.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from automoe.cost.protocol import MeasuringProtocol
from automoe.errors import InputError
from automoe.run.recipe import load_recipe
from helpers.tiny_run import REPOSITORY, write_tiny_recipe

SHIPPED = sorted((REPOSITORY / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_loaded(path):
    recipe = load_recipe(path).recipe
    assert recipe.latency.source == "profile"
    assert recipe.latency.profile is None


def test_a_recipe_without_its_stages_needs_no_torch():
    command = "import sys, automoe.run.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_the_measuring_protocol_has_every_value_of_the_recipe(tmp_path: Path):
    values = {
        "backend": "onnx", "precision": "int8", "threads": 3, "beam_size": 4, "source_length": 6,
        "target_length": 7, "batch": 8,
    }  # fmt: skip
    overrides = [f"latency.{name}={value}" for name, value in values.items()]
    recipe = load_recipe(write_tiny_recipe(tmp_path), [*overrides, "data.vocabulary.size=25"]).recipe
    assert recipe.protocol() == MeasuringProtocol(vocabulary_size=25, norm="pre", **values)


def test_files_are_found_beside_the_recipe(tmp_path: Path):
    recipe = write_tiny_recipe(tmp_path)
    loaded = load_recipe(recipe, ["latency.profile=devices/phone.json"])
    assert loaded.recipe.latency.profile == str(tmp_path / "devices" / "phone.json")
    loaded = load_recipe(recipe, ["latency.source=predictor", "latency.predictor=../p.json"])
    assert loaded.recipe.latency.predictor == str(tmp_path.parent / "p.json")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["latency.source=predictor"], ["latency.predictor: missing"]),
        (["latency.source=measurement", "latency.profile=p"], ["profile: is only used with source: profile"]),
        (
            ["latency.source=predictor", "latency.profile=p"],
            ["profile: is only used with source: profile", "predictor: missing"],
        ),
        (["latency.source=guess"], ["latency.source"]),
        (["latency.backend=fast"], ["latency.backend"]),
        (["latency.backend=onnx", "latency.precision=float16"], ["latency.precision: onnx has no float16"]),
        (["latency.search_runs=9"], ["latency.search_runs"]),
    ],
)
def test_a_source_without_its_file_or_an_unknown_name_is_refused(tmp_path, overrides, expected):
    recipe = write_tiny_recipe(tmp_path)
    with pytest.raises(InputError) as caught:
        load_recipe(recipe, overrides)
    assert len(caught.value.problems) == len(expected)
    for part in expected:
        assert part in str(caught.value)


def problems(tmp_path: Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        load_recipe(write_tiny_recipe(tmp_path), overrides)
    return caught.value.problems


def test_mistakes_in_several_sections_are_all_listed_with_their_section(tmp_path):
    found = problems(
        tmp_path,
        "supernet.steps=0",
        "supernet.peak_rate=-1",
        "training.warmup_steps=99",
        "fine_tuning.clip_norm=0",
        "translation={n_best: 9}",
        "data.train={}",
        "data.limits={max_characters: 0}",
        "systems=[dense]",
        "search.constraints={flops: -1}",
    )
    assert set(found) == {
        "supernet.steps: expected at least 1, got 0",
        "supernet.peak_rate: expected more than 0, got -1",
        "training.warmup_steps: expected at most steps (40), got 99",
        "fine_tuning.clip_norm: expected more than 0, got 0",
        "translation.n_best: expected at most beam_size (5), got 9",
        "data.train: give exactly one of: path; source_path and target_path; dataset",
        "data.limits.max_characters: expected at least 1, got 0",
        "systems: expected automoe, and each system at most once, got ['dense']",
        "search.constraints.flops: expected more than 0, got -1.0",
    }


@pytest.mark.parametrize("text", ["2e-3", "0.002", "2.0e-3"])
def test_a_number_may_be_written_in_every_way_of_yaml(tmp_path, text):
    recipe = load_recipe(write_tiny_recipe(tmp_path), [f"training.peak_rate={text}"]).recipe
    assert recipe.training.peak_rate == 0.002


def test_a_whole_number_is_a_number_and_dumped_as_one(tmp_path):
    recipe = load_recipe(write_tiny_recipe(tmp_path), ["training.peak_rate=1"]).recipe
    assert repr(recipe.plain("training")["training"]["peak_rate"]) == "1.0"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.peak_rate=true", "training.peak_rate: expected a number, got True"),
        ("training.steps=true", "training.steps: expected a whole number, got True"),
        ("training.steps='40'", "training.steps: expected a whole number, got '40'"),
        ("model.dropout=true", "model.dropout: expected a number, got True"),
        ("latency.runs=30.5", "latency.runs: expected a whole number, got 30.5"),
        ("search.constraints={flops: true}", "search.constraints.flops: expected a positive number"),
        ("search.constraints={flops: 6 %}", "search.constraints.flops: expected a positive number"),
        ("search.constraints={bleu: 3}", "search.constraints.bleu: unknown cost"),
        ("systems=[automoe, dense, dense]", "systems: expected automoe, and each system at most once"),
        ("supernet=fast", "supernet: expected keys and values"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_not_converted(tmp_path, override, expected):
    (found,) = problems(tmp_path, override)
    assert found.startswith(expected)


def test_a_misspelt_key_is_named_with_the_keys_of_its_section(tmp_path):
    (found,) = problems(tmp_path, "data.vocabulary.sise=30")
    assert found == "data.vocabulary.sise: unknown key (known: size, kind)"
