"""A model without the experts that no token was sent to computes what the whole one does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.model.pruning import emptied_architecture, without_experts
from helpers.random_models import architectures, batch, random_model

# In every mixture the third expert is never chosen, see `never_chosen`.
ARCHITECTURE = Architecture(
    16,
    12,
    8,
    (EncoderLayer(2, (24, 8, 24)), EncoderLayer(1, (8,))),
    (DecoderLayer(2, 1, (8, 0, 16)), DecoderLayer(1, 2, (8, 24, 8), encoder_layers_attended=2)),
)
EMPTIED = {"encoder.0": [2], "decoder.0": [2], "decoder.1": [2]}


def never_chosen():
    """Logits x, -x and x / 10: the third is never the largest."""
    model = random_model(ARCHITECTURE)
    with torch.no_grad():
        for name, weight_ED in model.named_parameters():
            if name.endswith("router.weight"):
                weight_ED[1] = -weight_ED[0]
                weight_ED[2] = weight_ED[0] / 10
    return model


def outputs(model, source_BS, target_BT):
    with torch.inference_mode():
        return model(torch.from_numpy(source_BS), torch.from_numpy(target_BT))


@settings(max_examples=40)
@given(architectures(), st.integers(0, 10_000), st.sampled_from(["pre", "post"]))
def test_without_unused_experts_outputs_are_the_same_to_the_last_bit(architecture, seed, norm):
    model = random_model(architecture, norm, seed)
    sides = batch(seed, [4, 2]), batch(seed + 1, [2, 3])
    whole = outputs(model, *sides)
    unused = {
        routing.layer: [
            e for e in range(len(routing.tokens_per_expert_E)) if not (routing.experts_NK == e).any()
        ]
        for routing in whole.routing
    }
    assume(any(unused.values()))
    pruned = without_experts(model, unused)
    assert torch.equal(outputs(pruned, *sides).hidden_BTD, whole.hidden_BTD)
    for layer, before in zip(pruned.architecture.layers(), architecture.layers(), strict=True):
        sizes = before.feed_forward.ffn_sizes
        kept = [0 if e in unused.get(layer.name, ()) else size for e, size in enumerate(sizes)]
        assert list(layer.feed_forward.ffn_sizes) == kept


def test_an_expert_that_was_used_is_missed():
    model = random_model(ARCHITECTURE)
    sides = batch(1, [7, 5]), batch(2, [6, 6])
    whole = outputs(model, *sides)
    used = {whole.routing[0].layer: [int(whole.routing[0].experts_NK[0, 0])]}
    assert not torch.equal(outputs(without_experts(model, used), *sides).hidden_BTD, whole.hidden_BTD)


@pytest.mark.parametrize(
    ("backend", "precision"), [("torch", "float32"), ("onnx", "float32"), ("onnx", "int8")]
)
def test_every_engine_translates_as_with_the_experts_that_are_never_chosen(backend, precision):
    whole = never_chosen()
    pruned = without_experts(whole, EMPTIED)
    source_BS = batch(3, [9, 4, 6, 1])
    settings = BeamSettings(beam_size=3, n_best=3)
    expected, found = (
        make_engine(model, backend, precision, 1).search(source_BS, settings) for model in (whole, pruned)
    )
    assert found == expected
    assert len({hypothesis.tokens for of_sentence in found for hypothesis in of_sentence}) > 4


def test_weights_are_copies_and_those_of_the_emptied_experts_are_gone():
    whole = never_chosen()
    pruned = without_experts(whole, EMPTIED)
    gone = set(whole.state_dict()) - set(pruned.state_dict())
    assert {name.rpartition("experts.")[2][:1] for name in gone} == {"2"}
    assert len(gone) == 3 * 4
    with torch.no_grad():
        pruned.embedding.zero_()
    assert np.any(whole.embedding.detach().numpy())


def test_the_least_of_an_architecture_changes():
    found = emptied_architecture(ARCHITECTURE, EMPTIED)
    assert found.encoder[0].ffn_sizes == (24, 8, 0)
    assert found.decoder[0].ffn_sizes == (8, 0, 0)
    back = replace(
        found,
        encoder=(replace(found.encoder[0], experts=ARCHITECTURE.encoder[0].experts), found.encoder[1]),
        decoder=ARCHITECTURE.decoder,
    )
    assert back == ARCHITECTURE


@pytest.mark.parametrize("emptied", [{"encoder.9": [0]}, {"encoder.0": [3]}, {"encoder.1": [0]}])
def test_what_is_not_there_cannot_be_emptied(emptied):
    with pytest.raises(ValueError, match="encoder"):
        emptied_architecture(ARCHITECTURE, emptied)
    with pytest.raises(ValueError, match=r"encoder\.0"):
        emptied_architecture(dense(8, 8, 1, 1, 1), {"encoder.0": [0]})
