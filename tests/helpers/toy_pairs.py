"""Made-up pairs of token ids, of which it is known what becomes what."""

import random

import numpy as np

from automoe.data.batching import TokenisedCorpus

VOCABULARY = 30


def corpus_of(pairs: list[tuple[list[int], list[int]]]) -> TokenisedCorpus:
    sides = {"source": [s for s, _ in pairs], "target": [t for _, t in pairs]}
    return TokenisedCorpus(
        {side: np.array([token for row in rows for token in row], np.int32) for side, rows in sides.items()},
        {side: np.cumsum([0, *map(len, rows)]) for side, rows in sides.items()},
    )


def random_pairs(seed: int, number: int) -> list[tuple[list[int], list[int]]]:
    """Each source token becomes one of two, in any order; sometimes a target token of its own comes in."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(number):
        source = [rng.randrange(4, 14) for _ in range(rng.randint(1, 6))]
        target = [token + rng.choice([10, 10, 15]) for token in source if rng.random() < 0.9]
        target += [29] * rng.randint(0, 2)
        rng.shuffle(target)
        pairs.append((source, target or [29]))
    return pairs
