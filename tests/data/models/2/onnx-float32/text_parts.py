"""A line as the parts that a model translates one by one, and their translations as a line again.

Exports carry a copy of this file, so it needs the standard library alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

# Of a part, end-of-sentence counted. Attention memory grows with the square of a length, and models are
# useless far beyond their training lengths.
MAX_SOURCE_TOKENS = 1024
# What stands in a normalised text for a word that spells a special token and that the vocabulary could not
# spell but by that token. They are no characters of Unicode, so of no vocabulary.
STAND_INS = {"\ufdd0": "<pad>", "\ufdd1": "<s>", "\ufdd2": "</s>"}

_CLOSING = "\"'”’“‘»›)\\]）］」』】》〉"
_SENTENCE_END = re.compile(rf"(?<![.!?…])[.!?…]+[{_CLOSING}]*(?=\s)|[。｡！？।॥۔؟։።។៕။།]+[{_CLOSING}]*")
_CLAUSE_END = re.compile(rf"(?<![,;:–—])[,;:–—]+[{_CLOSING}]*(?=\s)|[，、；：،؛፣၊]+[{_CLOSING}]*")


class Part(NamedTuple):
    """Attributes: text; tokens, its ids without end-of-sentence, none where `text` is its own translation."""

    text: str
    tokens: list[int]


@dataclass(frozen=True)
class LineSplitter:
    """How a model's lines become parts.

    Args:
        encode: the token ids of a text, without end-of-sentence.
        normalise: a text as the vocabulary reads it.
        unknown: the id of the unknown token.
        wordless: `wordless_tokens` of the vocabulary.
        max_tokens: of a part, end-of-sentence counted; at least 4, so that any character is a part.
    """

    encode: Callable[[str], list[int]]
    normalise: Callable[[str], str]
    unknown: int
    wordless: frozenset[int]
    max_tokens: int = MAX_SOURCE_TOKENS

    def parts(self, line: str, tokens: list[int]) -> list[Part]:
        """The parts of a line and its token ids, in order; none of a blank one.

        A line that fits is one part. A longer one is cut at the ends of its sentences; sentences that do not
        fit at their clauses; clauses that do not fit between words, as near their middle as may be. A part
        with unknown characters in which the vocabulary knows no letter is its own translation: the model,
        which sees none of its words, could but invent one.
        """
        if not tokens:
            return []
        if self.unknown in tokens and self.wordless.issuperset(set(tokens) - {self.unknown}):
            return [Part(self._plain(line), [])]
        if self._fits(tokens):
            return [Part(line, tokens)]
        pieces = self._pieces(self.normalise(line))
        return [part for piece in pieces for part in self.parts(piece, self.encode(piece))]

    def _pieces(self, text: str) -> list[str]:
        """A normalised text that does not fit, in pieces that do."""
        pieces = [text]
        for end in (_SENTENCE_END, _CLAUSE_END):
            pieces = [
                part for piece in pieces for part in ([piece] if self._short(piece) else _cut(piece, end))
            ]
        return [part for piece in pieces for part in self._halves(piece)]

    def _halves(self, text: str) -> Iterator[str]:
        if len(text) < 2 or self._short(text):
            yield text
            return
        middle = len(text) // 2
        spaces = [text.rfind(" ", 1, middle + 1), text.find(" ", middle, len(text) - 1)]
        cut = min((space for space in spaces if space > 0), key=lambda i: abs(i - middle), default=middle)
        yield from self._halves(text[:cut].strip())
        yield from self._halves(text[cut:].strip())

    def _short(self, text: str) -> bool:
        return self._fits(self.encode(text))

    def _fits(self, tokens: list[int]) -> bool:
        return len(tokens) < self.max_tokens

    def _plain(self, line: str) -> str:
        text = self.normalise(line)
        for stand_in, word in STAND_INS.items():
            text = text.replace(stand_in, word)
        return " ".join(text.split())


def wordless_tokens(vocabulary: Mapping[str, int]) -> frozenset[int]:
    """The ids of the tokens without a letter: digits, punctuation, the bare beginning of a word."""
    return frozenset(index for token, index in vocabulary.items() if not any(map(str.isalpha, token)))


def join_parts(texts: Iterable[str]) -> str:
    """One text of several: a space between two, but none behind Chinese or Japanese."""
    joined = ""
    for text in filter(None, texts):
        joined += ("" if not joined or _needs_no_space(joined[-1]) else " ") + text
    return joined


def _needs_no_space(character: str) -> bool:
    wide = unicodedata.east_asian_width(character) in "WF" and unicodedata.category(character)[0] in "LP"
    return wide and not unicodedata.name(character, "").startswith("HANGUL")  # Korean has spaces


def _cut(text: str, end: re.Pattern[str]) -> list[str]:
    ends = [match.end() for match in end.finditer(text)]
    pieces = (text[i:j].strip() for i, j in zip([0, *ends], [*ends, len(text)], strict=True))
    return [piece for piece in pieces if piece]
