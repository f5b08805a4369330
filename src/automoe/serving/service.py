"""Texts in, translated texts out: lines, limits and the queue, without a word of HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from automoe.data.text_parts import Part
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import EOS_ID
from automoe.errors import InputError
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.translator import Translation, copied, join_translations
from automoe.serving.batcher import Batcher
from automoe.serving.limits import ServingLimits
from automoe.serving.translation import Sentence, Translated

_LINE_BREAK = re.compile(r"(\r\n|\r|\n)")


class TooLargeError(Exception):
    """A request asks for more than `ServingLimits` allow; the message says which and how to keep it."""


@dataclass(frozen=True, slots=True)
class TranslatedLine:
    """A line that is not blank.

    Attributes:
        hypotheses: best first.
        sentences: what was translated for it by itself: several of a long line, none of a copied one.
    """

    hypotheses: tuple[Translation, ...]
    sentences: tuple[Translated, ...]


@dataclass(frozen=True, slots=True)
class TranslatedText:
    """One text.

    Attributes:
        text: its translation, with the line breaks of the source; blank lines are empty.
        lines: one entry per line that is not blank.
    """

    text: str
    lines: tuple[TranslatedLine, ...]


class Service:
    """Translates texts through a batcher.

    Args:
        batcher: `run` by the caller.
        tokenizer: the model's.
        settings: of the beam search, where a request says nothing else.
        limits: of one request.
    """

    def __init__(
        self, batcher: Batcher, tokenizer: Tokenizer, settings: BeamSettings, limits: ServingLimits
    ) -> None:
        self._batcher = batcher
        self._tokenizer = tokenizer
        self._settings = settings
        self._limits = limits

    async def translate(
        self, texts: Sequence[str], beam_size: int | None = None, n_best: int = 1, explain: bool = False
    ) -> list[TranslatedText]:
        """Translate each text line by line and join the lines again; a long line in parts, as everywhere.

        Raises:
            InputError: the beam or `n_best` is impossible, or several hypotheses are asked of a text of
                several lines, where "second best" has no meaning.
            TooLargeError: too many or too long texts.
            QueueFullError: the server is busy.
        """
        settings = self._checked(texts, beam_size, n_best)
        split = [_LINE_BREAK.split(text) for text in texts]  # lines at even indices, breaks at odd ones
        lines = [line for parts in split for line in parts[::2]]
        parts_of_lines = self._tokenizer.parts(lines)
        self._check_lines(sum(map(bool, parts_of_lines)))
        sentences = [
            Sentence((*part.tokens, EOS_ID), settings, explain)
            for parts in parts_of_lines
            for part in parts
            if part.tokens
        ]
        translated = iter(await self._batcher.submit(sentences))
        by_line = iter([_line(parts, translated) for parts in parts_of_lines])
        return [_join(breaks, [next(by_line) for _ in breaks[::2]]) for breaks in split]

    def _checked(self, texts: Sequence[str], beam_size: int | None, n_best: int) -> BeamSettings:
        """The search settings of a request whose size and settings are within the limits."""
        limits = self._limits
        if len(texts) > limits.texts:
            raise TooLargeError(f"{len(texts)} texts: send at most {limits.texts} a request")
        characters = sum(map(len, texts))
        if characters > limits.characters:
            raise TooLargeError(f"{characters} characters: send at most {limits.characters} a request")
        # A server whose own beam is narrower than `n_best` widens it, as far as the limit allows.
        beam_size = beam_size or max(self._settings.beam_size, n_best)
        if beam_size > limits.beam_size:
            raise InputError(f"a beam of {beam_size}: this server searches with at most {limits.beam_size}")
        if n_best > 1:
            several = [f"text {i}" for i, text in enumerate(texts) if _LINE_BREAK.search(text)]
            if several:
                raise InputError("n_best above 1 needs texts of one line, but these have several", several)
        return replace(self._settings, beam_size=beam_size, n_best=n_best)

    def _check_lines(self, lines: int) -> None:
        most = self._limits.waiting_sentences
        if lines > most:
            raise TooLargeError(f"{lines} lines: send at most {most} a request")


def _line(parts: Sequence[Part], translated: Iterator[Translated]) -> TranslatedLine | None:
    """The line of these parts, whose translations are next; None for a blank one."""
    if not parts:
        return None
    sentences = [next(translated) if part.tokens else None for part in parts]
    hypotheses = [
        copied(part.text) if sentence is None else sentence.hypotheses
        for part, sentence in zip(parts, sentences, strict=True)
    ]
    return TranslatedLine(join_translations(hypotheses), tuple(filter(None, sentences)))


def _join(parts: Sequence[str], lines: Sequence[TranslatedLine | None]) -> TranslatedText:
    """The text of `parts` (lines and the breaks between them) with each line's translation in its place."""
    joined = list(parts)
    joined[::2] = ["" if line is None else line.hypotheses[0].text for line in lines]
    return TranslatedText("".join(joined), tuple(line for line in lines if line is not None))
