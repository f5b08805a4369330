"""Translating streams of text: lines in, as many lines out, in the same order, in constant memory.

Shapes: B sentences, S source tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from automoe.data.text_parts import MAX_SOURCE_TOKENS, join_parts
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import EOS_ID, PAD_ID
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine, Hypothesis, Ids

# Lines held at once. Large enough that sorting by length wastes little padding, small enough that
# a stream shows progress.
WINDOW_LINES = 1024


class Translation(NamedTuple):
    """A translated line.

    Attributes:
        text: without a line break.
        score: as in `Hypothesis`; 0 where nothing was translated; the mean of the parts of a long line.
    """

    text: str
    score: float


class Translator:
    """An engine, its tokenizer and search settings, ready to translate text.

    Args:
        engine: the model, ready to run.
        tokenizer: the one the model was trained with.
        settings: of the beam search.
        max_source_tokens: a longer line is translated in parts, end-of-sentence counted.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        settings: BeamSettings | None = None,
        max_source_tokens: int = MAX_SOURCE_TOKENS,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.settings = settings or BeamSettings()
        self.max_source_tokens = max_source_tokens

    def translate(self, lines: Iterable[str], batch_tokens: int = 2000) -> Iterator[str]:
        """The best translation of each line, as in `translate_n_best`."""
        for translations in self.translate_n_best(lines, batch_tokens):
            yield translations[0].text

    def translate_n_best(
        self, lines: Iterable[str], batch_tokens: int = 2000
    ) -> Iterator[tuple[Translation, ...]]:
        """The `n_best` translations of each line, best first; an empty or blank line gives one empty one.

        A long line is translated in parts, and unknown text is copied, as `LineSplitter.parts` says.

        Lines are read in windows of `WINDOW_LINES`, batched by length inside a window and yielded in
        their order, so memory does not grow with the stream. A line break at a line's end is ignored;
        the translations hold none.

        Args:
            batch_tokens: at most this many source tokens a batch, padding counted; a longer line
                goes alone.
        """
        remaining = iter(lines)
        yield from self.translate_windows(
            iter(lambda: list(islice(remaining, WINDOW_LINES)), []), batch_tokens
        )

    def translate_windows(
        self, windows: Iterable[Sequence[str]], batch_tokens: int = 2000
    ) -> Iterator[tuple[Translation, ...]]:
        """As `translate_n_best`, of lines in windows; a window is read when those before it are answered."""
        for window in windows:
            split = self.tokenizer.parts([line.rstrip("\r\n") for line in window], self.max_source_tokens)
            sources = [[*part.tokens, EOS_ID] for parts in split for part in parts if part.tokens]
            found = iter(self.search(sources, batch_tokens))
            for parts in split:
                yield join_translations(
                    [self.spell(next(found)) if part.tokens else copied(part.text) for part in parts]
                )

    def search(self, sources: Sequence[Sequence[int]], batch_tokens: int) -> list[list[Hypothesis]]:
        """The `n_best` hypotheses of token sequences that end with EOS, in the order given."""
        found: list[list[Hypothesis]] = [[] for _ in sources]
        for indices in batches_by_length([len(source) for source in sources], batch_tokens):
            source_BS = pad_right([sources[index] for index in indices])
            for index, hypotheses in zip(indices, self.engine.search(source_BS, self.settings), strict=True):
                found[index] = hypotheses
        return found

    def spell(self, hypotheses: Sequence[Hypothesis]) -> tuple[Translation, ...]:
        """The text of each hypothesis; what some program takes for a line break becomes a space."""
        texts = self.tokenizer.decode([hypothesis.tokens for hypothesis in hypotheses])
        return tuple(
            Translation(" ".join(text.splitlines()), hypothesis.score)
            for text, hypothesis in zip(texts, hypotheses, strict=True)
        )


def copied(text: str) -> tuple[Translation, ...]:
    """The one translation of a text that is its own."""
    return (Translation(text, 0.0),)


def join_translations(parts: Sequence[Sequence[Translation]]) -> tuple[Translation, ...]:
    """The translations of a line, best first, from those of its parts: the k-th is made of each part's k-th.

    A part that has fewer gives its last again. Without parts, a blank line's empty translation.
    """
    if len(parts) == 1:
        return tuple(parts[0])
    joined = []
    for rank in range(max(map(len, parts), default=1)):
        chosen = [translations[min(rank, len(translations) - 1)] for translations in parts]
        score = sum(translation.score for translation in chosen) / max(len(chosen), 1)
        joined.append(Translation(join_parts(translation.text for translation in chosen), score))
    return tuple(joined)


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices grouped so that count times longest is at most `batch_tokens`, longest first.

    Longest first, so that a batch too large for the memory fails at once. An item longer than
    `batch_tokens` is a group of its own.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and (len(group) + 1) * lengths[group[0]] > batch_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def pad_right(rows: Sequence[Sequence[int]]) -> Ids:
    """One array (B, S) of token sequences, padded on the right with PAD."""
    longest = max(map(len, rows))
    return np.array([[*row, *[PAD_ID] * (longest - len(row))] for row in rows], dtype=np.int64)
