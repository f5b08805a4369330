"""IBM's model 1, against the obvious EM over dictionaries."""

from collections import defaultdict

import numpy as np
import pytest

from automoe.data.alignment import learn_translations
from automoe.data.vocabulary import EOS_ID
from helpers.toy_pairs import VOCABULARY as V
from helpers.toy_pairs import corpus_of, random_pairs


def slow_em(pairs: list[tuple[list[int], list[int]]], iterations: int) -> dict[tuple[int, int], float]:
    """t(target | source) by source and target, as in the textbook."""
    t: dict[tuple[int, int], float] = defaultdict(lambda: 1 / V)
    for _ in range(iterations):
        counts: dict[tuple[int, int], float] = defaultdict(float)
        totals: dict[int, float] = defaultdict(float)
        for source, target in pairs:
            for f in target:
                normaliser = sum(t[e, f] for e in [*source, EOS_ID])
                for e in [*source, EOS_ID]:
                    share = t[e, f] / normaliser
                    counts[e, f] += share
                    totals[e] += share
        t = defaultdict(float, {(e, f): count / totals[e] for (e, f), count in counts.items()})
    return t


@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("seed", [1, 2])
def test_probabilities_are_those_of_the_textbook(iterations: int, seed: int) -> None:
    pairs = random_pairs(seed, 60)
    expected = slow_em(pairs, iterations)
    found = learn_translations(corpus_of(pairs), V, kept=V, iterations=iterations)
    for e in range(V):
        probabilities = found.probabilities_VK[e]
        assert (np.diff(probabilities) <= 0).all()
        mine = {f: p for f, p in zip(found.tokens_VK[e].tolist(), probabilities.tolist(), strict=True) if p}
        theirs = {f: p for (source, f), p in expected.items() if source == e and p}
        assert mine == pytest.approx(theirs)


def test_the_translation_is_found() -> None:
    found = learn_translations(corpus_of(random_pairs(3, 2000)), V, kept=2, iterations=10)
    assert found.tokens_VK[4:14].tolist() == [[token + 10, token + 15] for token in range(4, 14)]
    assert found.tokens_VK[EOS_ID, 0] == 29
    assert not found.probabilities_VK[14:].any()


def test_what_is_kept_is_the_best() -> None:
    corpus = corpus_of(random_pairs(4, 50))
    few, all_of_them = (learn_translations(corpus, V, kept=kept) for kept in (3, V))
    assert (few.tokens_VK == all_of_them.tokens_VK[:, :3]).all()
    assert (few.probabilities_VK == all_of_them.probabilities_VK[:, :3]).all()


def test_of_a_large_corpus_pairs_are_looked_at_that_lie_far_apart() -> None:
    pairs = random_pairs(5, 101)
    found = learn_translations(corpus_of(pairs), V, kept=5, most_pairs=3)
    expected = learn_translations(corpus_of([pairs[0], pairs[50], pairs[100]]), V, kept=5)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine == theirs).all()
