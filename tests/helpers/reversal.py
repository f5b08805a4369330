"""A task a small model learns in seconds: translate a string of digits into the reversed string."""

from __future__ import annotations

import random
from typing import Any

import torch

from automoe.data.batching import Batch
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer

FIRST_DIGIT = len(SPECIAL_TOKENS)
VOCABULARY = FIRST_DIGIT + 10

LARGE = Architecture(
    encoder_width=32,
    decoder_width=32,
    qkv_dim=32,
    encoder=(EncoderLayer(4, (48, 32)), EncoderLayer(2, (64,))),
    decoder=(DecoderLayer(4, 4, (64, 48, 0)), DecoderLayer(2, 2, (64,), encoder_layers_attended=2)),
)
SMALL = Architecture(
    encoder_width=24,
    decoder_width=16,
    qkv_dim=32,
    encoder=(EncoderLayer(2, (32,)),),
    decoder=(DecoderLayer(2, 4, (32, 16)),),
)


def draw(rng: random.Random) -> Architecture:
    """One of the two."""
    return rng.choice((LARGE, SMALL))


def digits(rng: random.Random, longest: int) -> list[int]:
    """2 to `longest` random digits as token ids."""
    return [rng.randrange(FIRST_DIGIT, VOCABULARY) for _ in range(rng.randint(2, longest))]


def batch_of(sources: list[list[int]]) -> Batch:
    """Sources and their reversals, with special tokens and padding."""
    targets = [source[::-1] for source in sources]

    def padded(rows: list[list[int]]) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([row + [PAD_ID] * (width - len(row)) for row in rows])

    return Batch(
        source_BS=padded([[*source, EOS_ID] for source in sources]),
        target_in_BT=padded([[BOS_ID, *target] for target in targets]),
        target_out_BT=padded([[*target, EOS_ID] for target in targets]),
        source_tokens=sum(len(source) + 1 for source in sources),
        target_tokens=sum(len(target) + 1 for target in targets),
    )


class ReversalStream:
    """Endless batches; the n-th one depends on the seed and n alone."""

    def __init__(self, seed: int, sentences: int = 8, longest: int = 6) -> None:
        self.seed, self.sentences, self.longest, self.position = seed, sentences, longest, 0

    def __iter__(self) -> ReversalStream:
        return self

    def __next__(self) -> Batch:
        rng = random.Random(f"{self.seed} {self.position}")
        self.position += 1
        return batch_of([digits(rng, self.longest) for _ in range(self.sentences)])

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
