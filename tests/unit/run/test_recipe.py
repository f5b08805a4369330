"""What a recipe may say about latency; the rest of its checks are seen in test_bad_input.py."""

from pathlib import Path

import pytest

from automoe.errors import InputError
from automoe.run.recipe import load_recipe
from helpers.tiny_run import REPOSITORY, write_tiny_recipe

SHIPPED = sorted((REPOSITORY / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_loaded(path):
    recipe = load_recipe(path).recipe
    assert recipe.latency.source == "profile"
    assert recipe.latency.profile is None


def test_files_are_found_beside_the_recipe(tmp_path: Path):
    recipe = write_tiny_recipe(tmp_path)
    loaded = load_recipe(recipe, ["latency.profile=devices/phone.json"])
    assert loaded.recipe.latency.profile == str(tmp_path / "devices" / "phone.json")
    loaded = load_recipe(recipe, ["latency.source=predictor", "latency.predictor=../p.json"])
    assert loaded.recipe.latency.predictor == str(tmp_path.parent / "p.json")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["latency.source=predictor"], ["predictor: missing"]),
        (["latency.source=measurement", "latency.profile=p"], ["profile: is only used with source: profile"]),
        (
            ["latency.source=predictor", "latency.profile=p"],
            ["profile: is only used with source: profile", "predictor: missing"],
        ),
        (["latency.source=guess"], ["latency.source"]),
        (["latency.backend=fast"], ["latency.backend"]),
        (["latency.backend=onnx", "latency.precision=float16"], ["precision: onnx has no float16"]),
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
