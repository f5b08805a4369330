"""`Shortlist`: the target tokens that a source makes likely, to which an output layer may be restricted.

As in Marian and Bergamot, but a sentence's shortlist has the size that was asked for, whatever its length.

Shapes: B sentences, S source tokens, V vocabulary, K translations of a token, W tokens found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from automoe.data.alignment import learn_translations
from automoe.data.likely_tokens import COPIED, likely_tokens
from automoe.data.vocabulary import SPECIAL_TOKENS
from automoe.errors import InputError
from automoe.storage import whole_file

if TYPE_CHECKING:
    from automoe.data.batching import TokenisedCorpus

KEPT = 100  # translations of a source token

Shortlister: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Of sources (B, S), padded on the right, the tokens that may be written: (W,), sorted, none twice, the
special tokens first."""


@dataclass(frozen=True, eq=False)
class Shortlist:
    """What `likely_tokens` knows of a corpus.

    Attributes:
        tokens_VK: unsigned integers, as small as the vocabulary allows: what each source token becomes.
        weights_VK: uint16, how probably, in 65,535ths; 0 where there are fewer than K.
        shares_V: float32, of each token in the corpus's target text, in 65,535ths.
    """

    tokens_VK: NDArray[Any]
    weights_VK: NDArray[np.uint16]
    shares_V: NDArray[np.float32]

    @staticmethod
    def learn(corpus: TokenisedCorpus, vocabulary_size: int, kept: int = KEPT) -> Shortlist:
        """From the pairs of a corpus (`learn_translations`)."""
        kept = min(kept, vocabulary_size)
        found = learn_translations(corpus, vocabulary_size, kept)
        counts_V = np.bincount(corpus.tokens["target"], minlength=vocabulary_size)
        return Shortlist(
            tokens_VK=found.tokens_VK.astype(np.min_scalar_type(vocabulary_size - 1)),
            weights_VK=np.rint(COPIED * found.probabilities_VK).astype(np.uint16),
            shares_V=(COPIED * counts_V / counts_V.sum()).astype(np.float32),
        )

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return len(self.shares_V)

    def of(self, source_BS: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """The tokens that may be written in translations, (W,), as of a `Shortlister`.

        Args:
            size: of one sentence's; a batch has those of all its sentences.
        """
        return likely_tokens(source_BS, self.tokens_VK, self.weights_VK, self.shares_V, size)

    def sized(self, size: int) -> Shortlister:
        """`of` with this size.

        Raises:
            InputError: it has no room for more than the special tokens.
        """
        if size <= len(SPECIAL_TOKENS):
            problem = f"shortlist: expected more than the {len(SPECIAL_TOKENS)} special tokens, got {size}"
            raise InputError("this shortlist is impossible", [problem])
        return partial(self.of, size=size)

    def save(self, path: Path) -> None:
        """Write a safetensors file, complete or not at all.

        Raises:
            InputError: the disk is full or refuses.
        """
        tensors = {"tokens": self.tokens_VK, "weights": self.weights_VK, "shares": self.shares_V}
        with whole_file(path) as temporary:
            save_file(tensors, temporary)

    @staticmethod
    def load(path: Path, vocabulary_size: int) -> Shortlist:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged, something else, or of another vocabulary.
        """
        mend = f"delete {path.name}, or get it anew from where the model was made"
        try:
            tensors: dict[str, NDArray[Any]] = load_file(path)
            found = Shortlist(tensors["tokens"], tensors["weights"], tensors["shares"])
            V, K = found.tokens_VK.shape
            shapes = found.weights_VK.shape, found.shares_V.shape
            kinds = found.tokens_VK.dtype.kind, found.weights_VK.dtype, found.shares_V.dtype
            if shapes != ((V, K), (V,)) or kinds != ("u", np.dtype(np.uint16), np.dtype(np.float32)):
                raise ValueError("its tensors do not belong together")
            if K and found.tokens_VK.max() >= V:
                raise ValueError("it names tokens that its vocabulary has not")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{path}: is damaged or no shortlist", [str(error), mend]) from error
        if vocabulary_size != V:
            problem = f"it is of {V} tokens, the model of {vocabulary_size}"
            raise InputError(f"{path}: the shortlist is not this model's", [problem, mend])
        return found


def random_shortlister(size: int, vocabulary_size: int, seed: int = 0) -> Shortlister:
    """Random tokens, others for each batch, which has so many altogether: for measuring times."""
    rng = np.random.default_rng(seed)
    first = len(SPECIAL_TOKENS)
    others = min(size, vocabulary_size) - first

    def choose(source_BS: NDArray[np.int64]) -> NDArray[np.int64]:
        chosen = first + rng.choice(vocabulary_size - first, others, replace=False, shuffle=False)
        return np.concatenate([np.arange(first), np.sort(chosen)])

    return choose
