"""A search space small enough to be searched by brute force, and costs and a score for its members."""

import itertools
import random
from collections.abc import Iterator

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer

WIDTHS, HEADS, FFN_SIZES = (8, 16, 32), (1, 2), (8, 16, 32)
GENES = (WIDTHS, WIDTHS, HEADS, FFN_SIZES, HEADS, FFN_SIZES, HEADS, FFN_SIZES)


class ToySpace:
    """1,944 architectures of 2 + 1 layers, or fewer when `genes` has fewer choices."""

    def __init__(self, genes=GENES):
        self.genes = genes

    def sample(self, rng: random.Random) -> Architecture:
        return build([rng.choice(choices) for choices in self.genes])

    def mutate(self, parent: Architecture, probability: float, rng: random.Random) -> Architecture:
        return build(
            [
                rng.choice(choices) if rng.random() < probability else gene
                for gene, choices in zip(genes_of(parent), self.genes, strict=True)
            ]
        )

    def cross(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        return build([rng.choice(pair) for pair in zip(genes_of(a), genes_of(b), strict=True)])

    def smallest(self) -> Architecture:
        return build([min(choices) for choices in self.genes])

    def members(self) -> Iterator[Architecture]:
        return map(build, itertools.product(*self.genes))


def build(genes) -> Architecture:
    encoder_width, decoder_width, heads_0, ffn_0, heads_1, ffn_1, heads_2, ffn_2 = genes
    return Architecture(
        encoder_width=encoder_width,
        decoder_width=decoder_width,
        qkv_dim=8,
        encoder=(EncoderLayer(heads_0, (ffn_0,)), EncoderLayer(heads_1, (ffn_1,))),
        decoder=(DecoderLayer(heads_2, 1, (ffn_2,)),),
    )


def genes_of(a: Architecture) -> tuple[int, ...]:
    layers = [(layer.self_attention_heads, layer.ffn_sizes[0]) for layer in (*a.encoder, *a.decoder)]
    return (a.encoder_width, a.decoder_width, *itertools.chain.from_iterable(layers))


def flops(a: Architecture) -> float:
    return float(sum(a.encoder_width * layer.ffn_sizes[0] for layer in a.encoder)) + float(
        sum(a.decoder_width * layer.ffn_sizes[0] for layer in a.decoder)
    )


def latency_ms(a: Architecture) -> float:
    """Unlike FLOPs, heads cost time; not a binary fraction, so that a log must keep every digit."""
    return 0.1 * sum(genes_of(a)) + sum(layer.self_attention_heads for layer in (*a.encoder, *a.decoder)) / 3


def score(a: Architecture) -> float:
    """A loss with interactions and one best member under any bound; larger is better on the whole."""
    rugged = random.Random(repr(genes_of(a))).random()
    capacity = sum(
        (3 if layer.self_attention_heads == 2 else 1) * layer.ffn_sizes[0] ** 0.5 for layer in a.encoder
    )
    return 10 - 0.1 * capacity - 0.02 * (a.encoder_width * a.decoder_width) ** 0.5 + 0.05 * rugged


class Counted:
    """A cost or a score that remembers what it was called with."""

    def __init__(self, function, fail_after: int | None = None):
        self.function, self.fail_after = function, fail_after
        self.calls: list[Architecture] = []

    def __call__(self, architecture: Architecture) -> float:
        if self.fail_after is not None and len(self.calls) == self.fail_after:
            raise KeyboardInterrupt
        self.calls.append(architecture)
        return self.function(architecture)
