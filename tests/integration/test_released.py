"""A committed model of each format decodes as when it was made (see `helpers.released`)."""

import json

import pytest

from helpers.paths import TEST_DATA
from helpers.released import said

pytestmark = pytest.mark.slow  # whole processes, seconds each

RELEASED = sorted((TEST_DATA / "models").iterdir())


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_a_released_model_says_what_it_said(folder):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    assert said(folder) == expected


def test_the_models_say_something():
    for folder in RELEASED:
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        for said_then in expected.values():
            assert len({str(one) for one in said_then}) >= 5
