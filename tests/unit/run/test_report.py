"""What the report's stage hands to the model's card."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.run.recipe import load_recipe
from automoe.run.report import measured_facts
from helpers.tiny_run import write_tiny_recipe

MIXTURE = Architecture(8, 8, 8, (EncoderLayer(1, (8, 16, 0)),), (DecoderLayer(1, 1, (16, 8)),))
IDLE = "experts without a token of the test set"


def facts_of(folder: Path, batch: int = 1, architecture: Architecture = MIXTURE, **shares):
    recipe = load_recipe(write_tiny_recipe(folder), [f"latency.batch={batch}"]).recipe
    result = {
        "architecture": architecture.to_dict(),
        "routing_shares": {name.replace("_", "."): share for name, share in shares.items()},
        "scores": {"bleu": 1.0, "bleu_signature": "", "chrf": 1.0},
        "test_pairs": {"kept": 3, "empty": 0, "too_long": 0, "unequal": 0, "cleaned": 0},
        "counts": {"sparsity": 0.0},
        "counts_as_routed": {"flops": 1},
    }
    run = SimpleNamespace(recipe=recipe, protocol=recipe.protocol())
    return measured_facts(run, result, {"latency_ms": 5.0})


@pytest.mark.parametrize(("batch", "subject"), [(1, "sentence"), (8, "batch")])
def test_a_card_says_what_the_latency_is_of(tmp_path: Path, batch, subject):
    facts = facts_of(tmp_path, batch)
    assert {name: value for name, value in facts.items() if name.startswith("latency, ")} == {
        f"latency, ms a {subject}": 5.0
    }


@pytest.mark.parametrize(
    ("encoder", "decoder", "idle"),
    [
        ((1.0, 0.0, 0.0), (0.0, 1.0), "encoder.0's expert 2 of 3, decoder.0's expert 1 of 2"),
        ((0.5, 0.5, 0.0), (0.1, 0.9), "none"),  # an identity expert has no weights
    ],
)
def test_a_card_names_experts_that_got_no_token(tmp_path: Path, encoder, decoder, idle):
    assert facts_of(tmp_path, encoder_0=encoder, decoder_0=decoder)[IDLE] == idle


def test_the_card_of_a_dense_model_says_nothing_of_experts(tmp_path: Path):
    assert IDLE not in facts_of(tmp_path, architecture=dense(8, 16, 1, 1, 1))
