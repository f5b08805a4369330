"""Random weights without torch are those of a fresh model, but for what spreads tokens over the experts."""

import numpy as np
import pytest
import torch

from automoe.cost.random_weights import random_weights
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.inference.weight_shapes import weight_shapes
from automoe.model.sublayers import Context
from automoe.model.transformer import Transformer

SCALES = {"embedding": 10.0, "out.weight": 0.1, "down.weight": 0.1, "candidate.weight": 0.1}
ARCHITECTURE = Architecture(
    96,
    64,
    64,
    (EncoderLayer(4, (64, 128, 0)), EncoderLayer(4, (96,))),
    (
        DecoderLayer(4, 4, (64, 96), encoder_layers_attended=2),
        DecoderLayer(0, 4, (64,), mixer="ssru"),
        DecoderLayer(0, 4, (64,), mixer="average_attention"),
    ),
)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_they_are_distributed_as_those_of_a_fresh_model(norm: str) -> None:
    model = Transformer(ARCHITECTURE, 200, ModelOptions(norm=norm))
    model.initialise(0)
    fresh = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    found = random_weights(weight_shapes(ARCHITECTURE, 200, norm), 1)
    assert found.keys() == fresh.keys()
    for name, tensor in found.items():
        assert (tensor.shape, tensor.dtype) == (fresh[name].shape, np.float32)
        if name.endswith(("router.weight", "_gate.of_input.bias")):
            continue
        expected = fresh[name] * next((scale for end, scale in SCALES.items() if name.endswith(end)), 1.0)
        assert tensor.mean() == pytest.approx(float(expected.mean()), abs=0.1 * float(expected.std()))
        assert tensor.std() == pytest.approx(float(expected.std()), rel=0.05)
        if tensor.ndim == 2 and name != "embedding":  # uniform, so both come near the same bound
            assert np.abs(tensor).max() == pytest.approx(float(np.abs(expected).max()), rel=0.02)


def test_what_looks_at_positions_before_adds_little() -> None:
    """Of much, what all tokens of a position have in common would send them to one expert."""
    weights = random_weights(weight_shapes(ARCHITECTURE, 200, "pre"), 0)
    model = Transformer(ARCHITECTURE, 200, ModelOptions("pre"))
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.items()})
    x_BTD = torch.randn(8, 12, 64, generator=torch.Generator().manual_seed(0))
    context = Context(causal=True, visible=None, valid_N=None)
    for block in model.decoder:
        _, mixer, _ = next(block.parts())
        with torch.no_grad():
            update_BTD, _ = mixer(x_BTD, context)
        assert 0 < update_BTD.std() < 0.3 * x_BTD.std()


def test_rows_of_a_router_are_orthogonal_and_of_one_length() -> None:
    router_ED = random_weights(weight_shapes(ARCHITECTURE, 200, "post"), 0)[
        "encoder.0.ffn.mixture.router.weight"
    ]
    np.testing.assert_allclose(router_ED @ router_ED.T, np.eye(3), atol=1e-6)


def test_more_experts_than_dimensions_have_orthogonal_columns() -> None:
    many = Architecture(4, 4, 4, (EncoderLayer(1, (4,) * 6),), (DecoderLayer(1, 1, (4,)),))
    router_ED = random_weights(weight_shapes(many, 9, "post"), 0)["encoder.0.ffn.mixture.router.weight"]
    assert router_ED.shape == (6, 4)
    np.testing.assert_allclose(router_ED.T @ router_ED, np.eye(4), atol=1e-6)


def test_the_seed_decides() -> None:
    first, again, other = (random_weights(weight_shapes(ARCHITECTURE, 9, "post"), seed) for seed in (1, 1, 2))
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor, again[name])
        assert tensor.ndim == 1 or not np.array_equal(tensor, other[name])
