"""What a trained model is worth on a test set: BLEU, chrF, and its experts' shares of the tokens."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacremoses import MosesTokenizer  # type: ignore[import-untyped]

from automoe.data.corpus import Pair
from automoe.data.shortlist import Shortlister
from automoe.data.tokenizer import Tokenizer
from automoe.evaluation.bleu import bleu_metric, language_of
from automoe.evaluation.expert_use import ExpertUse, expert_use
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class Scores:
    """Corpus scores from 0 to 100, each with the signature that says how it was computed.

    Attributes:
        bleu: sacreBLEU on detokenised text, as `automoe.evaluation.bleu` fits it to the language.
        chrf: chrF2.
        tokenised_bleu: as the papers report it: Moses tokens, case-sensitive, compounds split at hyphens.
            Where sacreBLEU has a tokenizer for the language, its tokens instead: Moses knows no words there.
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
        target_language: a code such as `de` or `zh-CN`: how BLEU parts words, and the Moses tokenizer's
            rules for abbreviations and apostrophes (those of English when it does not know the language).

    Raises:
        InputError: it is no such code, or sacreBLEU's tokenizer for it is not installed.
        ValueError: there are not as many hypotheses as references, or none.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} references")
    bleu, chrf, tokenised = bleu_metric(target_language), CHRF(), BLEU(tokenize="none", force=True)
    words, words_name = _papers_words(bleu, language_of(target_language))
    return Scores(
        bleu=bleu.corpus_score(hypotheses, [references]).score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf.corpus_score(hypotheses, [references]).score,
        chrf_signature=str(chrf.get_signature()),
        tokenised_bleu=tokenised.corpus_score(
            [_split_compounds(words(text)) for text in hypotheses],
            [[_split_compounds(words(text)) for text in references]],
        ).score,
        tokenised_bleu_signature=f"{tokenised.get_signature()}|{words_name}|compounds:split",
    )


def evaluate_model(
    model: Transformer,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    target_language: str,
    settings: BeamSettings | None = None,
    batch_tokens: int = 2000,
    *,
    references: Sequence[str] | None = None,
    scored: Sequence[int] | None = None,
    shortlister: Shortlister | None = None,
) -> Evaluation:
    """Translate the sources of a test set, score the translations, and count where tokens were routed.

    Args:
        model: put into evaluation mode.
        settings: of the beam search; by default the papers' beam of 5 and length penalty of 0.6.
        batch_tokens: source tokens a batch, padding counted.
        references: one a pair, for the scores; by default the targets of the pairs.
        scored: the indices of the pairs that scores and routing are of; by default all. All are translated.
        shortlister: which tokens may be written in translations of a batch; None is all.
    """
    references = [pair.target for pair in pairs] if references is None else references
    scored = range(len(pairs)) if scored is None else scored
    engine = TorchEngine(model.eval(), shortlister=shortlister)
    translator = Translator(engine, tokenizer, settings)
    start = time.perf_counter()
    translations = tuple(translator.translate((pair.source for pair in pairs), batch_tokens))
    seconds = time.perf_counter() - start
    scores = evaluate_translations(
        [translations[k] for k in scored], [references[k] for k in scored], target_language
    )
    use = expert_use(model, tokenizer, [pairs[k] for k in scored], batch_tokens)
    return Evaluation(scores, translations, seconds, use)


def _papers_words(bleu: BLEU, language: str) -> tuple[Callable[[str], str], str]:
    """What parts a text into words with spaces between them, and its name in the signature."""
    if bleu.tokenizer_signature != BLEU.TOKENIZER_DEFAULT:
        return bleu.tokenizer, f"words:{bleu.tokenizer_signature}"
    moses = MosesTokenizer(lang=language)
    return lambda text: str(moses.tokenize(text, return_str=True, escape=False)), f"moses:{language}"


def _split_compounds(words: str) -> str:
    """Hyphenated compounds split, as in the papers' compound-split BLEU."""
    return re.sub(r"(\S)-(\S)", r"\1 ##AT##-##AT## \2", words)
