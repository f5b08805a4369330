"""What a corpus is like before anything is trained on it: lengths, repetitions, whether its sides agree."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automoe.data.corpus import Pair

# Lengths of translations follow each other: their logarithms correlate by some 0.9 in prose, 0.7 in short
# phrases, and by 0 where line k of one side belongs to another line of the other.
LEAST_CORRELATION = 0.3
LEAST_JUDGED = 200  # pairs whose correlation says something
LEAST_SPREAD = 0.1  # standard deviation of a logarithm of lengths: below, all lines are about equally long
MOST_STRETCHES = 20
MOST_COPIED = 0.2


@dataclass(frozen=True)
class Survey:
    """Facts of a corpus.

    Attributes:
        pairs: in all. `documents`: different ones that are named.
        source_characters, target_characters: of one sentence, on average.
        longest_characters: of the longest side of all.
        repeated_pairs: those that were there before, both sides. `repeated_sources`: the source alone.
        copied: whose sides are equal.
        doubts: a sentence each; what looks wrong, but may be right.
    """

    pairs: int
    documents: int
    source_characters: float
    target_characters: float
    longest_characters: int
    repeated_pairs: int
    repeated_sources: int
    copied: int
    doubts: tuple[str, ...]


def survey(pairs: Sequence[Pair]) -> Survey:
    """Look at a corpus of at least one pair; nothing of it is copied."""
    count = len(pairs)
    source_C = np.fromiter((len(pair.source) for pair in pairs), np.int64, count)
    target_C = np.fromiter((len(pair.target) for pair in pairs), np.int64, count)
    sources = text_keys(pair.source for pair in pairs)
    both = text_keys(f"{pair.source}\n{pair.target}" for pair in pairs)
    copied = sum(pair.source == pair.target for pair in pairs)
    doubts = list(misalignment(source_C, target_C))
    if copied > MOST_COPIED * count:
        doubts.append(f"{copied / count:.0%} of the pairs have two equal sides: are both languages there?")
    return Survey(
        pairs=count,
        documents=len({pair.document for pair in pairs if pair.document}),
        source_characters=float(source_C.mean()),
        target_characters=float(target_C.mean()),
        longest_characters=int(max(source_C.max(), target_C.max())),
        repeated_pairs=count - len(np.unique(both)),
        repeated_sources=count - len(np.unique(sources)),
        copied=copied,
        doubts=tuple(doubts),
    )


def text_keys(texts: Iterable[str]) -> NDArray[np.uint64]:
    """A number for each text, the same for texts that differ in case or in Unicode's way to spell them.

    Eight bytes of a hash that does not change with process or machine, so that the texts of a large corpus
    can be compared without a second copy of them.
    """
    return np.fromiter(map(_key, texts), np.uint64)


def _key(text: str) -> int:
    folded = unicodedata.normalize("NFC", text).casefold()
    return int.from_bytes(
        hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


def misalignment(source_C: NDArray[np.int64], target_C: NDArray[np.int64]) -> list[str]:
    """Why line k of one side does not seem to belong to line k of the other; nothing where it does.

    Args:
        source_C, target_C: lengths of the sides in characters, in the order of the corpus.
    """
    if (whole := _correlation(source_C, target_C)) is None:
        return []
    if whole < LEAST_CORRELATION:
        return [
            f"lengths of source and target hardly go together (correlation {whole:.2f}, usually above "
            f"{LEAST_CORRELATION}): do lines of equal number belong together?"
        ]
    stretches = min(MOST_STRETCHES, len(source_C) // LEAST_JUDGED)
    bounds = np.linspace(0, len(source_C), stretches + 1).astype(int)
    doubtful = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        found = _correlation(source_C[start:end], target_C[start:end])
        if found is not None and found < LEAST_CORRELATION:
            doubtful.append(f"{start + 1:,} to {end:,}")
    if not doubtful:
        return []
    return [
        f"within the pairs {'; '.join(doubtful)} (of those that are of use) lengths of source and target "
        "hardly go together: is a line missing on one side before?"
    ]


def _correlation(source_C: NDArray[np.int64], target_C: NDArray[np.int64]) -> float | None:
    """Of the logarithms of lengths; None where it would say nothing."""
    logs = np.log(source_C), np.log(target_C)
    if len(source_C) < LEAST_JUDGED or min(side.std() for side in logs) < LEAST_SPREAD:
        return None
    return float(np.corrcoef(*logs)[0, 1])
