"""The work of the serving thread: a batch of sentences in, translations and routing out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from automoe.data.tokenizer import Tokenizer
from automoe.evaluation.routing import Router, SentenceRouting, route_sentences
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine
from automoe.inference.translator import Translation, Translator


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
    """The engine that translates and the router that explains, used by one thread.

    Args:
        router: of the same model.
        engine: what decodes, possibly less precisely.
        tokenizer: the model's.
        batch_tokens: source tokens of one batch of the engine, padding counted.
    """

    def __init__(self, router: Router, engine: Engine, tokenizer: Tokenizer, batch_tokens: int) -> None:
        self._router = router
        self._engine = engine
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens

    def __call__(self, sentences: Sequence[Sentence]) -> list[Translated]:
        """Translate sentences that share their settings; as many results, in their order."""
        translator = Translator(self._engine, self._tokenizer, sentences[0].settings)
        found = translator.search([list(sentence.tokens) for sentence in sentences], self._batch_tokens)
        routing = self._explain(sentences, [hypotheses[0].tokens for hypotheses in found])
        return [
            Translated(translator.spell(hypotheses), routing.get(index))
            for index, hypotheses in enumerate(found)
        ]

    def _explain(
        self, sentences: Sequence[Sentence], targets: Sequence[Sequence[int]]
    ) -> dict[int, SentenceRouting]:
        """The routing of the sentences that want it, by index."""
        wanted = [index for index, sentence in enumerate(sentences) if sentence.explain]
        if not wanted:
            return {}
        sources = [sentences[index].tokens for index in wanted]
        routed = route_sentences(self._router, sources, [targets[index] for index in wanted])
        return dict(zip(wanted, routed, strict=True))
