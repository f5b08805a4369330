"""Random small models, by hypothesis and by seed, and batches of random sentences."""

import dataclasses
import random

import torch
from hypothesis import strategies as st

from automoe.data.vocabulary import EOS_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.inference.engine import Ids
from automoe.inference.translator import pad_right
from automoe.model.transformer import Transformer

VOCABULARY = 23
# Of log probabilities: rounding weights and inputs to 8 bits moves those of a random model by some percent.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "int8": 0.5}

experts = st.lists(st.sampled_from([0, 8, 24]), min_size=1, max_size=4).map(tuple)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    def top_k(sizes: tuple[int, ...]) -> int:
        return draw(st.integers(1, min(2, len(sizes))))

    def encoder_layer() -> EncoderLayer:
        sizes = draw(experts)
        return EncoderLayer(draw(st.sampled_from([1, 2, 4])), sizes, top_k(sizes))

    def decoder_layer() -> DecoderLayer:
        sizes = draw(experts)
        heads = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4]))
        return DecoderLayer(*heads, sizes, top_k(sizes), draw(st.integers(1, 2)))

    widths = draw(st.sampled_from([12, 16])), draw(st.sampled_from([12, 16]))
    encoder = tuple(encoder_layer() for _ in range(2))
    return Architecture(*widths, 8, encoder, tuple(decoder_layer() for _ in range(draw(st.integers(1, 2)))))


def without_mixtures(architecture: Architecture) -> Architecture:
    """The same with the first expert of each layer alone."""
    stacks = {
        stack: tuple(dataclasses.replace(layer, experts=layer.experts[:1], top_k=1) for layer in layers)
        for stack, layers in (("encoder", architecture.encoder), ("decoder", architecture.decoder))
    }
    return dataclasses.replace(architecture, **stacks)


def random_model(architecture: Architecture, norm: str = "pre", seed: int = 0) -> Transformer:
    model = Transformer(architecture, VOCABULARY, ModelOptions(norm))
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # biases that are not zero, and norms that are not the identity
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def batch(seed: int, lengths: list[int]) -> Ids:
    rng = random.Random(seed)
    rows = [[*(rng.randrange(4, VOCABULARY) for _ in range(n - 1)), EOS_ID] for n in lengths]
    return pad_right(rows)
