"""The work of the serving thread: a batch of sentences in, translations and routing out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from automoe.data.tokenizer import Tokenizer
from automoe.inference.beam import BeamSettings, Hypothesis
from automoe.inference.engine import Engine
from automoe.inference.translator import Translation, Translator
from automoe.model.transformer import Transformer
from automoe.serving.routing import SentenceRouting, route_sentences


@dataclass(frozen=True, slots=True)
class Sentence:
    """What waits in the queue.

    Attributes:
        tokens: of the source, end-of-sentence last.
        settings: of the beam search; one batch shares them.
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


class SentenceTranslator:
    """The engine that translates and the reference model that explains, used by one thread.

    Args:
        model: the reference; its teacher-forced pass tells the routing.
        engine: what decodes, possibly less precisely.
        tokenizer: the model's.
        batch_tokens: source tokens of one batch of the engine, padding counted.
    """

    def __init__(self, model: Transformer, engine: Engine, tokenizer: Tokenizer, batch_tokens: int) -> None:
        self._model = model
        self._engine = engine
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens

    def __call__(self, sentences: Sequence[Sentence], answer: Callable[[int, Translated], None]) -> None:
        """Translate sentences that share their settings.

        Args:
            answer: told the index of each sentence and what became of it, as soon as it is known: short
                sentences do not wait for the long ones of their batch, only for an explanation.
        """
        translator = Translator(self._engine, self._tokenizer, sentences[0].settings)

        def finished(index: int, hypotheses: list[Hypothesis]) -> None:
            if not sentences[index].explain:
                answer(index, Translated(translator.spell(hypotheses), None))

        sources = [list(sentence.tokens) for sentence in sentences]
        found = translator.search(sources, self._batch_tokens, finished)
        explained = [index for index, sentence in enumerate(sentences) if sentence.explain]
        if explained:
            targets = [found[index][0].tokens for index in explained]
            routed = route_sentences(self._model, [sources[index] for index in explained], targets)
            for index, routing in zip(explained, routed, strict=True):
                answer(index, Translated(translator.spell(found[index]), routing))
