"""What the report's stage hands to the model's card."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from automoe.run.recipe import load_recipe
from automoe.run.report import measured_facts
from helpers.tiny_run import write_tiny_recipe


@pytest.mark.parametrize(("batch", "subject"), [(1, "sentence"), (8, "batch")])
def test_a_card_says_what_the_latency_is_of(tmp_path: Path, batch, subject):
    recipe = load_recipe(write_tiny_recipe(tmp_path), [f"latency.batch={batch}"]).recipe
    result = {
        "scores": {"bleu": 1.0, "bleu_signature": "", "chrf": 1.0},
        "test_pairs": {"kept": 3, "empty": 0, "too_long": 0, "unequal": 0, "cleaned": 0},
        "counts": {"sparsity": 0.0},
        "counts_as_routed": {"flops": 1},
    }
    run = SimpleNamespace(recipe=recipe, protocol=recipe.protocol())
    facts = measured_facts(run, result, {"latency_ms": 5.0})
    assert {name: value for name, value in facts.items() if name.startswith("latency, ")} == {
        f"latency, ms a {subject}": 5.0
    }
