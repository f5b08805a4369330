"""Token ids on disk, and batches of them: bucketed by length, seeded, resumable.

Shapes: B sentences, S source tokens, T target tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automoe.data.corpus import Pair
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID
from automoe.errors import InputError
from automoe.storage import disk_errors, whole_file

SIDES = ("source", "target")
# Sentences sorted together: enough that little is padded, few enough that an epoch is well mixed.
BUCKETED = 8192
ENCODED = 10_000  # pairs tokenised together: Python's lists of a whole corpus would take gigabytes


@dataclass(frozen=True)
class TokenisedCorpus:
    """Pairs as token ids, without BOS and EOS: per side a flat array and where each sentence starts.

    Attributes:
        tokens: int32 per side. `offsets`: int64 per side, one more than sentences.
    """

    tokens: dict[str, NDArray[np.int32]]
    offsets: dict[str, NDArray[np.int64]]

    @staticmethod
    def build(pairs: Sequence[Pair], tokenizer: Tokenizer, max_tokens: int) -> TokenisedCorpus:
        """Tokenise; a pair with a side of more than `max_tokens` tokens is left out.

        Raises:
            InputError: nothing is left.
        """
        tokens: dict[str, list[NDArray[np.int32]]] = {side: [] for side in SIDES}
        lengths: dict[str, list[int]] = {side: [] for side in SIDES}
        for start in range(0, len(pairs), ENCODED):
            chunk = pairs[start : start + ENCODED]
            encoded = {side: tokenizer.encode([getattr(pair, side) for pair in chunk]) for side in SIDES}
            both = zip(encoded["source"], encoded["target"], strict=True)
            kept = [index for index, (s, t) in enumerate(both) if max(len(s), len(t)) <= max_tokens]
            for side, sentences in encoded.items():
                lengths[side] += [len(sentences[index]) for index in kept]
                flat = [token for index in kept for token in sentences[index]]
                tokens[side].append(np.array(flat, dtype=np.int32))
        if not lengths["source"]:
            raise InputError("no sentence pair is short enough", [f"raise max_tokens ({max_tokens})"])
        return TokenisedCorpus(
            {side: np.concatenate(tokens[side]) for side in SIDES},
            {side: np.cumsum([0, *lengths[side]], dtype=np.int64) for side in SIDES},
        )

    def save(self, folder: Path) -> None:
        """Write four `.npy` files, each completely or not at all.

        Raises:
            InputError: the disk is full or refuses.
        """
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for kind, arrays in (("tokens", self.tokens), ("offsets", self.offsets)):
            for side in SIDES:
                path = folder / f"{side}.{kind}.npy"
                with whole_file(path) as temporary, temporary.open("wb") as file:
                    np.save(file, arrays[side])

    @staticmethod
    def load(folder: Path) -> TokenisedCorpus:
        """What `save` wrote, memory-mapped.

        Raises:
            InputError: a file is missing or damaged.
        """
        try:
            tokens, offsets = (
                {side: np.load(folder / f"{side}.{kind}.npy", mmap_mode="r") for side in SIDES}
                for kind in ("tokens", "offsets")
            )
            if len(offsets["source"]) != len(offsets["target"]) or any(
                len(tokens[side]) != offsets[side][-1] for side in SIDES
            ):
                raise ValueError("tokens and offsets do not belong together")
        except (OSError, ValueError) as error:
            mend = f"delete {folder.parent}, then it is made again"
            raise InputError(f"{folder}: is damaged", [str(error), mend]) from error
        return TokenisedCorpus(tokens, offsets)

    def __len__(self) -> int:
        return len(self.offsets["source"]) - 1

    def sentence(self, side: str, index: int) -> list[int]:
        """The token ids of one side of one pair."""
        start, end = self.offsets[side][index : index + 2]
        ids: list[int] = self.tokens[side][start:end].tolist()
        return ids


def joined(first: TokenisedCorpus, second: TokenisedCorpus) -> TokenisedCorpus:
    """The pairs of one corpus, then those of another of the same vocabulary."""
    return TokenisedCorpus(
        {side: np.concatenate([first.tokens[side], second.tokens[side]]) for side in SIDES},
        {
            side: np.concatenate([first.offsets[side], first.offsets[side][-1] + second.offsets[side][1:]])
            for side in SIDES
        },
    )


@dataclass(frozen=True)
class Batch:
    """Sentence pairs, padded on the right with PAD_ID; int64.

    Attributes:
        source_BS: ends with EOS. `target_in_BT`: starts with BOS. `target_out_BT`: ends with EOS.
        source_tokens, target_tokens: without padding.
    """

    source_BS: Tensor
    target_in_BT: Tensor
    target_out_BT: Tensor
    source_tokens: int
    target_tokens: int


class BatchStream:
    """Endless batches of a corpus; the order is a function of the seed and the epoch alone.

    Args:
        batch_tokens: at most this many target tokens a batch, and twice as many source tokens, padding
            and EOS counted; a longer pair goes alone.
    """

    def __init__(self, corpus: TokenisedCorpus, batch_tokens: int, seed: int) -> None:
        self._corpus = corpus
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._epoch = self._position = 0
        self._plan = self._plan_epoch()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._position == len(self._plan):
            self._epoch, self._position = self._epoch + 1, 0
            self._plan = self._plan_epoch()
        batch = make_batch(self._corpus, self._plan[self._position])
        self._position += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, as JSON values."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, on the same corpus with the same settings."""
        self._epoch, self._position = state["epoch"], state["position"]
        self._plan = self._plan_epoch()

    def _plan_epoch(self) -> list[list[int]]:
        """The epoch's batches as lists of pairs: shuffle, sort by length in buckets, cut, shuffle."""
        rng = random.Random(f"{self._seed} {self._epoch}")
        order = list(range(len(self._corpus)))
        rng.shuffle(order)
        batches = []
        for start in range(0, len(order), BUCKETED):
            bucket = order[start : start + BUCKETED]
            batches += _cut(self._corpus, bucket, self._batch_tokens)
        rng.shuffle(batches)
        return batches


def fixed_batches(
    corpus: TokenisedCorpus, batch_tokens: int, indices: Iterable[int] | None = None
) -> list[Batch]:
    """Every sentence (or those of `indices`) once, sorted by length; for validation."""
    chosen = range(len(corpus)) if indices is None else indices
    return [make_batch(corpus, batch) for batch in _cut(corpus, chosen, batch_tokens)]


def make_batch(corpus: TokenisedCorpus, indices: Sequence[int]) -> Batch:
    """These pairs as one batch."""
    sources = [[*corpus.sentence("source", index), EOS_ID] for index in indices]
    targets = [corpus.sentence("target", index) for index in indices]
    return Batch(
        _pad(sources),
        _pad([[BOS_ID, *target] for target in targets]),
        _pad([[*target, EOS_ID] for target in targets]),
        sum(map(len, sources)),
        sum(len(target) + 1 for target in targets),
    )


def _cut(corpus: TokenisedCorpus, indices: Iterable[int], batch_tokens: int) -> list[list[int]]:
    """Neighbours in length together, as many a batch as `batch_tokens` allows (see `BatchStream`)."""
    chosen = np.fromiter(indices, dtype=np.int64)
    lengths = [
        corpus.offsets[side][chosen + 1] - corpus.offsets[side][chosen] + 1 for side in ("source", "target")
    ]
    # By the longer side, then the source: less padding than by target and source. The sort is stable, so
    # pairs of equal lengths stay shuffled.
    order = np.lexsort([lengths[0], np.maximum(*lengths)])
    batches: list[list[int]] = []
    widest = [0, 0]
    for index, *both in zip(*(values[order].tolist() for values in (chosen, *lengths)), strict=True):
        grown = [max(pair) for pair in zip(widest, both, strict=True)]
        rows = len(batches[-1]) + 1 if batches else 1
        if batches and rows * grown[0] <= 2 * batch_tokens and rows * grown[1] <= batch_tokens:
            batches[-1].append(index)
            widest = grown
        else:
            batches.append([index])
            widest = both
    return batches


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD_ID] * (longest - len(row))] for row in rows])
