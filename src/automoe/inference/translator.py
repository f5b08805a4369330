"""Translating streams of text: lines in, as many lines out, in the same order, in constant memory.

Shapes: B sentences, S source tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import EOS_ID, PAD_ID
from automoe.errors import InputError
from automoe.inference.beam import Hypothesis, beam_search
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine

# Lines held at once. Large enough that sorting by length wastes little padding, small enough that
# a stream shows progress.
WINDOW_LINES = 1024


class Translation(NamedTuple):
    """A translated line. Attributes: text, without a line break; score, as in `Hypothesis`."""

    text: str
    score: float


class Translator:
    """An engine, its tokenizer and search settings, ready to translate text.

    Args:
        engine: the model, ready to run.
        tokenizer: the one the model was trained with.
        settings: of the beam search.
        max_source_tokens: a longer line is refused, end-of-sentence counted. Attention memory grows
            with the square of a line's length, and models are useless far beyond their training lengths.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        settings: BeamSettings | None = None,
        max_source_tokens: int = 1024,
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

        Lines are read in windows of `WINDOW_LINES`, batched by length inside a window and yielded in
        their order, so memory does not grow with the stream. A line break at a line's end is ignored;
        the translations hold none.

        Args:
            batch_tokens: at most this many source tokens a batch, padding counted; a longer line
                goes alone.

        Raises:
            InputError: lines longer than `max_source_tokens`, by number (the first line is 1). The
                windows before have been yielded by then.
        """
        remaining = iter(lines)
        yield from self.translate_windows(
            iter(lambda: list(islice(remaining, WINDOW_LINES)), []), batch_tokens
        )

    def translate_windows(
        self, windows: Iterable[Sequence[str]], batch_tokens: int = 2000
    ) -> Iterator[tuple[Translation, ...]]:
        """As `translate_n_best`, of lines in windows; a window is read when those before it are answered."""
        first_number = 1
        for window in windows:
            sources = self._encode([line.rstrip("\r\n") for line in window], first_number)
            filled = [index for index, source in enumerate(sources) if len(source) > 1]
            found = self.search([sources[index] for index in filled], batch_tokens)
            translations: list[tuple[Translation, ...]] = [(Translation("", 0.0),)] * len(window)
            for index, hypotheses in zip(filled, found, strict=True):
                translations[index] = self.spell(hypotheses)
            yield from translations
            first_number += len(window)

    def search(self, sources: Sequence[Sequence[int]], batch_tokens: int) -> list[list[Hypothesis]]:
        """The `n_best` hypotheses of token sequences that end with EOS, in the order given."""
        found: list[list[Hypothesis]] = [[] for _ in sources]
        for indices in batches_by_length([len(source) for source in sources], batch_tokens):
            source_BS = pad_right([sources[index] for index in indices]).to(self.engine.device)
            for index, hypotheses in zip(
                indices, beam_search(self.engine, source_BS, self.settings), strict=True
            ):
                found[index] = hypotheses
        return found

    def spell(self, hypotheses: Sequence[Hypothesis]) -> tuple[Translation, ...]:
        """The text of each hypothesis; a line break the tokenizer may spell becomes a space."""
        texts = self.tokenizer.decode([hypothesis.tokens for hypothesis in hypotheses])
        return tuple(
            Translation(text.replace("\r", " ").replace("\n", " "), hypothesis.score)
            for text, hypothesis in zip(texts, hypotheses, strict=True)
        )

    def _encode(self, lines: Sequence[str], first_number: int) -> list[list[int]]:
        sources = [[*tokens, EOS_ID] for tokens in self.tokenizer.encode(list(lines))]
        problems = [
            f"line {number}: {len(source)} tokens"
            for number, source in enumerate(sources, start=first_number)
            if len(source) > self.max_source_tokens
        ]
        if problems:
            limit = self.max_source_tokens
            raise InputError(f"lines of more than {limit} tokens: split them at sentence ends", problems)
        return sources


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


def pad_right(rows: Sequence[Sequence[int]]) -> Tensor:
    """One int64 tensor (B, S) of token sequences, padded on the right with PAD."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD_ID] * (longest - len(row))] for row in rows])
