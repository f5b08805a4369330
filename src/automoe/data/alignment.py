"""Which target tokens a source token becomes, learned from sentence pairs.

By IBM's model 1 (Brown et al., 1993): each target token of a pair is made by one of its source tokens, all
equally likely to be the one, with the probability t(f | e). EM finds the t by which the corpus is most
probable. The source's end-of-sentence stands for none in particular, as the model's empty word does.

All occurrences of one source token are counted together, source token by source token, so that neither a
table of all pairs of tokens nor one of all pairs of occurrences is ever held.

Shapes: N sentence pairs, V vocabulary, K translations kept, X pairs in which a source token occurs, J tokens
of all targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from automoe.data.vocabulary import EOS_ID

if TYPE_CHECKING:
    from automoe.data.batching import TokenisedCorpus

# More sharpen the likely translations, and lose of the unlikely ones, which are what a shortlist is for.
ITERATIONS = 3
MOST_PAIRS = 200_000  # spread evenly over a larger corpus: more would hardly change what is likely


class Translations(NamedTuple):
    """The most probable translations of each source token, best first, equal ones in the order of their ids.

    Attributes:
        tokens_VK: target tokens; 0 where there are fewer.
        probabilities_VK: t(f | e); 0 where there are fewer.
    """

    tokens_VK: NDArray[np.int64]
    probabilities_VK: NDArray[np.float64]


def learn_translations(
    corpus: TokenisedCorpus,
    vocabulary_size: int,
    kept: int,
    iterations: int = ITERATIONS,
    most_pairs: int = MOST_PAIRS,
) -> Translations:
    """Learn from a corpus; in the same order of pairs, the same result. A million target tokens take seconds.

    Args:
        kept: translations of a source token. `iterations`: of EM, from t uniform, at least one.
        most_pairs: of a larger corpus, so many are looked at.
    """
    V = vocabulary_size
    pairs_N = np.unique(np.linspace(0, len(corpus) - 1, min(len(corpus), most_pairs)).astype(np.int64))
    sources, source_lengths_N = _chosen(corpus, "source", pairs_N)
    target_J, lengths_N = _chosen(corpus, "target", pairs_N)
    starts_N = np.cumsum(lengths_N) - lengths_N

    # Where each source token occurs, and how often there: sorted by token, then by pair.
    N = len(pairs_N)
    pair_of = np.concatenate([np.repeat(np.arange(N), source_lengths_N), np.arange(N)])
    tokens = np.concatenate([sources, np.full(N, EOS_ID)])
    occurrences, times = np.unique(tokens * N + pair_of, return_counts=True)
    bounds = np.searchsorted(occurrences, np.arange(V + 1) * N)

    found = Translations(np.zeros((V, kept), np.int64), np.zeros((V, kept)))
    rows: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    probability_V = np.zeros(V)
    # The sum over a pair's source tokens of t(f | e), for every target token f of it; of t = 1 at first.
    sums_J = np.repeat(source_lengths_N + 1.0, lengths_N)
    for _ in range(iterations):
        next_sums_J = np.zeros(len(target_J))
        for token in np.flatnonzero(np.diff(bounds)).tolist():
            here = slice(bounds[token], bounds[token + 1])
            pairs_X = occurrences[here] % N
            lengths_X = lengths_N[pairs_X]
            ends_X = np.cumsum(lengths_X)
            at = np.repeat(starts_N[pairs_X] - (ends_X - lengths_X), lengths_X) + np.arange(ends_X[-1])
            targets, share = target_J[at], np.repeat(times[here], lengths_X)
            expected = share / sums_J[at]
            if token in rows:
                ids, probabilities = rows[token]
                probability_V[ids] = probabilities
                expected = expected * probability_V[targets]
            counts_V = np.bincount(targets, expected, minlength=V)
            updated_V = counts_V / counts_V.sum()
            ids = np.flatnonzero(updated_V)
            rows[token] = ids, updated_V[ids]
            next_sums_J[at] += share * updated_V[targets]
        sums_J = next_sums_J
    for token, (ids, probabilities) in rows.items():
        best = np.argsort(-probabilities, kind="stable")[:kept]
        found.tokens_VK[token, : len(best)] = ids[best]
        found.probabilities_VK[token, : len(best)] = probabilities[best]
    return found


def _chosen(
    corpus: TokenisedCorpus, side: str, pairs_N: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens of one side of some pairs, and how many each pair has."""
    starts_N, ends_N = corpus.offsets[side][pairs_N], corpus.offsets[side][pairs_N + 1]
    lengths_N = ends_N - starts_N
    ends = np.cumsum(lengths_N)
    at = np.repeat(starts_N - (ends - lengths_N), lengths_N) + np.arange(ends[-1])
    return corpus.tokens[side][at].astype(np.int64), lengths_N
