"""Scores against values computed by hand or by a few obvious lines."""

from collections import Counter
from dataclasses import dataclass

import pytest

from automoe.data.corpus import Pair
from automoe.data.text_parts import Part
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.evaluation.expert_use import expert_use
from automoe.evaluation.scores import evaluate_model, evaluate_translations
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer

ALPHABET = "abcdefgh "


@dataclass(frozen=True)
class Letters:
    """A tokenizer with one token a letter."""

    vocabulary_size: int = 4 + len(ALPHABET)

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[4 + ALPHABET.index(letter) for letter in text] for text in texts]

    def parts(self, lines: list[str], max_source_tokens: int) -> list[list[Part]]:
        rows = zip(lines, self.encode(lines), strict=True)
        return [[Part(line, tokens)] if tokens else [] for line, tokens in rows]

    def decode(self, ids: list[list[int]]) -> list[str]:
        return ["".join(ALPHABET[i - 4] for i in row if i >= 4) for row in ids]


PAIRS = [Pair("abc", "gh a"), Pair("hgfedcba", "b"), Pair("a", "cdefgh ab"), Pair("ba ab", "ba")]
ARCHITECTURE = Architecture(
    encoder_width=8,
    decoder_width=8,
    qkv_dim=8,
    encoder=(EncoderLayer(2, (8, 4)), EncoderLayer(2, (8,))),
    decoder=(DecoderLayer(2, 2, (8, 0, 4), top_k=2),),
)


@pytest.fixture
def model() -> Transformer:
    model = Transformer(ARCHITECTURE, Letters().vocabulary_size)
    model.initialise(0)
    return model


def test_bleu_is_the_geometric_mean_of_the_shares_of_common_ngrams() -> None:
    # 1- to 4-grams in common: 5 of 6, 3 of 5, 2 of 4, 1 of 3; no brevity penalty.
    scores = evaluate_translations(["the cat sat on a mat"], ["the cat sat on the mat"], "en")
    assert scores.bleu == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert scores.tokenised_bleu == pytest.approx(scores.bleu)


def test_bleu_is_of_the_corpus_not_a_mean_of_sentences() -> None:
    # Together 9 of 10, 6 of 8, 4 of 6, 2 of 4.
    hypotheses = ["the cat sat on a mat", "dogs run very fast"]
    references = ["the cat sat on the mat", "dogs run very fast"]
    scores = evaluate_translations(hypotheses, references, "en")
    assert scores.bleu == pytest.approx(100 * (9 / 10 * 6 / 8 * 4 / 6 * 2 / 4) ** 0.25)


def test_tokenised_bleu_splits_compounds() -> None:
    # Die E ##AT##-##AT## Post kommt heute endlich wieder an: 8 of 9, 6 of 8, 4 of 7, 2 of 6.
    scores = evaluate_translations(
        ["Die E-Post kommt heute endlich wieder an"], ["Die E-Mail kommt heute endlich wieder an"], "de"
    )
    assert scores.tokenised_bleu == pytest.approx(100 * (8 / 9 * 6 / 8 * 4 / 7 * 2 / 6) ** 0.25)
    # Unsplit, 6 of 7, 4 of 6, 3 of 5, 2 of 4.
    assert scores.bleu == pytest.approx(100 * (6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** 0.25)


def test_tokenised_bleu_parts_punctuation_and_keeps_case() -> None:
    same = evaluate_translations(["Er sagt : „ Ja “ ."], ["Er sagt: „Ja“."], "de")
    assert same.tokenised_bleu == pytest.approx(100)
    other = evaluate_translations(["er sagt: „ja“."], ["Er sagt: „Ja“."], "de")
    assert other.tokenised_bleu < 60


def character_f2(hypothesis: str, reference: str) -> float:
    """chrF2 of one sentence by its definition (Popović, 2015): precision and recall averaged over n."""
    precisions, recalls = [], []
    for n in range(1, 7):
        found, wanted = (
            Counter(text[i : i + n] for i in range(len(text) - n + 1))
            for text in (hypothesis.replace(" ", ""), reference.replace(" ", ""))
        )
        common = (found & wanted).total()
        precisions.append(common / found.total())
        recalls.append(common / wanted.total())
    p, r = sum(precisions) / 6, sum(recalls) / 6
    return 100 * 5 * p * r / (4 * p + r)


def test_chrf_by_its_definition() -> None:
    hypothesis, reference = "the cat sits on a mat", "a cat sat on the mat"
    scores = evaluate_translations([hypothesis], [reference], "en")
    assert scores.chrf == pytest.approx(character_f2(hypothesis, reference))


def test_every_score_says_how_it_was_computed() -> None:
    scores = evaluate_translations(["a"], ["a"], "de")
    assert "tok:13a" in scores.bleu_signature
    assert "case:mixed" in scores.bleu_signature
    assert "nc:6" in scores.chrf_signature
    assert "moses:de" in scores.tokenised_bleu_signature


@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], ["a", "b"])])
def test_unequal_or_empty_sets_are_an_error(hypotheses: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match="references"):
        evaluate_translations(hypotheses, references, "en")


def test_evaluating_a_model_translates_and_scores(model: Transformer) -> None:
    tokenizer, settings = Letters(), BeamSettings(beam_size=2, max_length_extra=5)
    evaluation = evaluate_model(model, tokenizer, PAIRS, "de", settings)
    translator = Translator(TorchEngine(model.eval()), tokenizer, settings)
    assert list(evaluation.translations) == list(translator.translate(pair.source for pair in PAIRS))
    references = [pair.target for pair in PAIRS]
    assert evaluation.scores == evaluate_translations(evaluation.translations, references, "de")
    assert evaluation.translation_seconds > 0
    assert [use.layer for use in evaluation.expert_use] == ["encoder.0", "decoder.0"]
    assert evaluation.expert_use == expert_use(model, tokenizer, PAIRS)
