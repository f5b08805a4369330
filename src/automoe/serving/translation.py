"""The work of the serving thread: sentences in, translations and routing out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from automoe.data.tokenizer import Tokenizer
from automoe.inference.beam import BeamSearch, BeamSettings
from automoe.inference.engine import Engine
from automoe.inference.translator import Translation, Translator, pad_right
from automoe.model.transformer import Transformer
from automoe.serving.routing import SentenceRouting, route_sentences


@dataclass(frozen=True, slots=True)
class Sentence:
    """What waits in the queue.

    Attributes:
        tokens: of the source, end-of-sentence last.
        settings: of the beam search; sentences translated together share them.
        explain: whether the routing of its best translation is wanted.
    """

    tokens: tuple[int, ...]
    settings: BeamSettings
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Translated:
    """What became of a `Sentence`: its `n_best` hypotheses, best first, and its routing if asked for."""

    hypotheses: tuple[Translation, ...]
    routing: SentenceRouting | None


Answer: TypeAlias = Callable[[int, Translated], None]
"""Told a sentence's number and what became of it; they are numbered in the order they came, from 0."""

More: TypeAlias = Callable[[int, int], list[Sentence]]
"""Asked for sentences that may join so many others, the longest of so many tokens: with their settings."""


class SentenceTranslator:
    """The engine that translates and the reference model that explains, used by one thread.

    Args:
        model: the reference; its teacher-forced pass tells the routing.
        engine: what decodes, possibly less precisely.
        tokenizer: the model's.
    """

    def __init__(self, model: Transformer, engine: Engine, tokenizer: Tokenizer) -> None:
        self._model = model
        self._engine = engine
        self._tokenizer = tokenizer

    def __call__(self, sentences: Sequence[Sentence], answer: Answer, more: More) -> None:
        """Translate sentences that share their settings, and those that join them, until none is left.

        Args:
            answer: told of each sentence as soon as it is done, while others still are searched.
            more: asked after every step, if the engine lets sentences join.
        """
        settings = sentences[0].settings
        spell = Translator(self._engine, self._tokenizer, settings).spell
        search = BeamSearch(self._engine, settings)
        live: dict[int, Sentence] = {}
        joining, known = list(sentences), 0
        with torch.inference_mode():
            while joining or live:
                if joining:
                    live.update(enumerate(joining, start=known))
                    known += len(joining)
                    encoded = self._engine.encode(pad_right([sentence.tokens for sentence in joining]))
                    search.admit(encoded, [len(sentence.tokens) for sentence in joining])
                for number, hypotheses in search.step():
                    routing = None
                    if (sentence := live.pop(number)).explain:
                        (routing,) = route_sentences(self._model, [sentence.tokens], [hypotheses[0].tokens])
                    answer(number, Translated(spell(hypotheses), routing))
                joining = []
                if live and self._engine.join is not None:
                    joining = more(len(live), max(len(sentence.tokens) for sentence in live.values()))
