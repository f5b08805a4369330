"""Dividing a corpus into training, validation and test set; the texts decide, not their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automoe.data.corpus import Pair
from automoe.data.survey import text_keys
from automoe.errors import InputError

FEWEST_PAIRS = 10
# A document, or a sentence that occurs many times, may make a part larger than wanted by this factor.
OVERSHOOT = 1.25


@dataclass(frozen=True)
class Division:
    """Which pairs of a corpus are in which part, as rising indices.

    No source of one part is in another, and none in a set that was kept apart.

    Attributes:
        train, valid, test: the parts; an empty one was not asked for.
        left_out: how many pairs are in no part: their source is in a set kept apart, or they belong to a
            document of `valid` or `test` and occur elsewhere, too.
        by_document: documents are whole; otherwise sentences were divided.
    """

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    left_out: int
    by_document: bool


def held_out_size(pairs: int) -> int:
    """How many pairs a validation or a test set should have, of a corpus of so many.

    A tenth of a small corpus, at least 500 of a larger one, a fortieth of a large one, never more than 2,000.
    """
    return max(1, min(2000, max(pairs // 40, min(pairs // 10, 500))))


def divide(pairs: Sequence[Pair], valid: int, test: int, apart: NDArray[np.uint64] | None = None) -> Division:
    """Take a validation and a test set of about so many pairs out of a corpus.

    Documents, or without them sources, are taken in the order of a hash of their text until a part is full.
    Only such pairs of a document are taken whose source occurs in no other one, and each once: so the
    training set loses nothing to them but those documents. Where documents are too few or too large, sources
    are divided instead.

    Args:
        valid, test: 0 for none.
        apart: keys (`text_keys`) of the sources of sets that are there already; they are in no part.

    Raises:
        InputError: fewer than `FEWEST_PAIRS` pairs, or too few different ones.
    """
    if len(pairs) < FEWEST_PAIRS:
        problem = f"{len(pairs)} pairs: at least {FEWEST_PAIRS} are needed, thousands to learn a language"
        raise InputError("this corpus cannot be divided", [problem])
    sources = text_keys(pair.source for pair in pairs)
    usable = np.ones(len(pairs), bool) if apart is None else ~np.isin(sources, apart)
    named = any(pair.document for pair in pairs)
    found = None
    if named and (valid or test):
        documents = text_keys(
            f"document {pair.document}" if pair.document else f"source {pair.source}" for pair in pairs
        )
        found = _parts(pairs, sources, documents, usable, (test, valid))
    by_document = found is not None
    found = found or _parts(pairs, sources, sources, usable, (test, valid))
    if found is None or not len(found[0]):
        problem = f"of {len(pairs):,} pairs too few have a source of their own: give more text, or the sets"
        raise InputError("this corpus cannot be divided", [problem])
    train, test_part, valid_part = found
    left_out = len(pairs) - len(train) - len(test_part) - len(valid_part)
    return Division(train, valid_part, test_part, left_out, by_document)


def _parts(
    pairs: Sequence[Pair],
    sources: NDArray[np.uint64],
    documents: NDArray[np.uint64],
    usable: NDArray[np.bool_],
    wanted: Sequence[int],
) -> tuple[NDArray[np.int64], ...] | None:
    """The rest, and a part of each wanted size; None where that cannot be done with these documents."""
    own = usable & ~np.isin(sources, _shared(sources, documents))
    names, document_of_pair = np.unique(documents, return_inverse=True)  # in the order of the hash
    sizes = np.bincount(document_of_pair, weights=own, minlength=len(names)).astype(np.int64)
    whole_sizes = np.bincount(document_of_pair, minlength=len(names))
    taken = np.zeros(len(names), bool)
    parts = []
    for size in wanted:
        chosen: list[int] = []
        total = 0
        for document in np.flatnonzero(~taken & (sizes > 0)) if size else ():
            if max(whole_sizes[document], total + sizes[document]) <= OVERSHOOT * size:
                chosen.append(int(document))
                total += int(sizes[document])
            if total >= size:
                break
        if 2 * total < size:
            return None
        taken[chosen] = True
        members = np.flatnonzero(own & np.isin(document_of_pair, chosen))
        parts.append(_once(pairs, members))
    return np.flatnonzero(usable & ~taken[document_of_pair]), *parts


def _shared(sources: NDArray[np.uint64], documents: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The sources that occur in several documents."""
    order = np.lexsort((documents, sources))
    source, document = sources[order], documents[order]
    shared = source[1:][(source[1:] == source[:-1]) & (document[1:] != document[:-1])]
    return np.unique(shared)


def _once(pairs: Sequence[Pair], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """The indices without those of pairs that are equal to an earlier one."""
    first = {(pairs[index].source, pairs[index].target): index for index in reversed(indices.tolist())}
    return np.array(sorted(first.values()), dtype=np.int64)
