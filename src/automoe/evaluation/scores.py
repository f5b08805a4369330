"""What a trained model is worth on a test set: BLEU, chrF, and its experts' shares of the tokens."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacremoses import MosesTokenizer  # type: ignore[import-untyped]

from automoe.data.corpus import Pair
from automoe.data.tokenizer import Tokenizer
from automoe.evaluation.routing import ExpertUse, expert_use
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Scores:
    """Corpus scores from 0 to 100, each with the signature that says how it was computed.

    Attributes:
        bleu: sacreBLEU on detokenised text, case-sensitive, its own `13a` tokenizer.
        chrf: chrF2.
        tokenised_bleu: as the papers report it: Moses tokens, case-sensitive, compounds split at hyphens.
    """

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    tokenised_bleu: float
    tokenised_bleu_signature: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model on a test set.

    Attributes:
        scores: of its translations. `translations`: one a pair, in order.
        translation_seconds: wall-clock time of translating them all, tokenizer included.
        expert_use: one entry per mixture layer, encoder first.
    """

    scores: Scores
    translations: tuple[str, ...]
    translation_seconds: float
    expert_use: tuple[ExpertUse, ...]


def evaluate_translations(
    hypotheses: Sequence[str], references: Sequence[str], target_language: str
) -> Scores:
    """Score detokenised translations against one reference each.

    Args:
        target_language: a code such as `de`: the Moses tokenizer's rules for abbreviations and
            apostrophes (those of English when it does not know the language).

    Raises:
        ValueError: there are not as many hypotheses as references, or none.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    bleu, chrf, tokenised = BLEU(), CHRF(), BLEU(tokenize="none", force=True)
    moses = MosesTokenizer(lang=target_language)
    return Scores(
        bleu=bleu.corpus_score(hypotheses, [references]).score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf.corpus_score(hypotheses, [references]).score,
        chrf_signature=str(chrf.get_signature()),
        tokenised_bleu=tokenised.corpus_score(
            [_papers_tokens(moses, text) for text in hypotheses],
            [[_papers_tokens(moses, text) for text in references]],
        ).score,
        tokenised_bleu_signature=f"{tokenised.get_signature()}|moses:{target_language}|compounds:split",
    )


def evaluate_model(
    model: Transformer,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    target_language: str,
    settings: BeamSettings | None = None,
    batch_tokens: int = 2000,
) -> Evaluation:
    """Translate the sources of a test set, score the translations, and count where tokens were routed.

    Args:
        model: put into evaluation mode.
        settings: of the beam search; by default the papers' beam of 5 and length penalty of 0.6.
        batch_tokens: source tokens a batch, padding counted.
    """
    translator = Translator(TorchEngine(model.eval()), tokenizer, settings)
    start = time.perf_counter()
    translations = tuple(translator.translate((pair.source for pair in pairs), batch_tokens))
    seconds = time.perf_counter() - start
    scores = evaluate_translations(translations, [pair.target for pair in pairs], target_language)
    return Evaluation(scores, translations, seconds, expert_use(model, tokenizer, pairs, batch_tokens))


def _papers_tokens(moses: MosesTokenizer, text: str) -> str:
    """Moses tokens with hyphenated compounds split, as in the papers' compound-split BLEU."""
    tokens: str = moses.tokenize(text, return_str=True, escape=False)
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", tokens)
