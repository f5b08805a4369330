"""The sentences of a report."""

import pytest
import torch

from automoe.data.corpus import Pair
from automoe.data.text_parts import MAX_SOURCE_TOKENS
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.architecture import dense
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.model_folder import save_model
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer
from automoe.run.sentences import READABLE_CHARACTERS, SHOWN, choose_sentences, sentences_of
from helpers.served import TEXTS, GatedEngine, tiny_model

LONG = Pair("x", "y" * (READABLE_CHARACTERS + 1))
SHORT = Pair("x", "y" * READABLE_CHARACTERS)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([SHORT], [0]),
        ([SHORT] * 20, list(range(20))),
        ([SHORT] * 40, list(range(0, 40, 2))),
        ([LONG, SHORT] * 40, list(range(1, 80, 4))),
        # Too few are short: the shortest others are shown beside them.
        ([LONG] * 2 + [Pair("x", "y" * 999)] + [SHORT] * 18, [0, 1, *range(3, 21)]),
    ],
)
def test_they_are_evenly_spaced_over_those_short_enough(pairs, expected):
    assert choose_sentences(pairs) == expected


def test_there_are_never_more_nor_the_same_twice():
    for count in range(1, 3 * SHOWN):
        chosen = choose_sentences([SHORT] * count)
        assert len(chosen) == len(set(chosen)) == min(count, SHOWN)
        assert chosen == sorted(chosen)


def test_a_line_that_no_single_pass_translated_shows_no_experts_and_says_why(tmp_path):
    model, tokenizer = tiny_model()
    save_model(tmp_path / "mixed", model, tokenizer, {})
    sources = [
        "漢字 漢字",
        "the cat sat on the mat. " * 300,
        "the cat sat on the mat",
        "\u200b",
        "the 漢字",
        "a bird",
    ]
    written = ["漢字 漢字", "the dog " * 300, "a dog", "", "the bird", "the " * MAX_SOURCE_TOKENS]
    pairs = [Pair(source, "x") for source in sources]
    found = sentences_of(pairs, ["x"] * 6, {"mixed": tmp_path / "mixed"}, {"mixed": written})
    outputs = [sentence["outputs"]["mixed"] for sentence in found]
    assert [output["translation"] for output in outputs] == written
    assert [output["note"] for output in outputs] == [
        "copied, because the vocabulary knows no letter of it",
        "split in 300 parts, each translated by itself, because it is too long",
        None,
        "the source is blank, so nothing was translated",
        None,
        "the translation is too long to be shown token by token (1,024 tokens)",
    ]
    assert [output["grids"] is None for output in outputs] == [True, True, False, True, False, True]
    # Shown are the tokens that the translator's engine reads, and all of them.
    for index in (2, 4):
        engine = GatedEngine(make_engine(model))
        engine.gate.set()
        list(Translator(engine, tokenizer, BeamSettings(beam_size=1)).translate([sources[index]]))
        assert outputs[index]["grids"]["encoder"]["tokens"] == tokenizer.pieces(engine.encoded[0])


def test_each_system_shows_what_it_wrote_and_which_experts_a_pass_over_it_takes(tmp_path):
    model, tokenizer = tiny_model()
    plain = Transformer(dense(16, 32, 2, 1, 1), tokenizer.vocabulary_size)
    plain.initialise(1)
    models = {"mixed": tmp_path / "mixed", "plain": tmp_path / "plain"}
    for folder, saved in zip(models.values(), (model, plain.eval()), strict=True):
        save_model(folder, saved, tokenizer, {})
    pairs = [Pair(TEXTS[0], TEXTS[1]), Pair(TEXTS[3], TEXTS[0])]
    translations = {"mixed": ["the bird", ""], "plain": [TEXTS[1], "a dog"]}
    found = sentences_of(pairs, ["as spelled", TEXTS[0]], models, translations)
    assert [s["source"] for s in found] == [pair.source for pair in pairs]
    assert [s["reference"] for s in found] == ["as spelled", TEXTS[0]]
    assert [s["outputs"]["mixed"]["translation"] for s in found] == ["the bird", ""]
    assert [s["outputs"]["plain"]["translation"] for s in found] == [TEXTS[1], "a dog"]
    for sentence in found:
        grids = sentence["outputs"]["mixed"]["grids"]
        (source,), (target,) = (
            tokenizer.encode([sentence["source"]]),
            tokenizer.encode([sentence["outputs"]["mixed"]["translation"]]),
        )
        with torch.inference_mode():
            routing = model(torch.tensor([[*source, EOS_ID]]), torch.tensor([[BOS_ID, *target]])).routing
        chosen = {
            layer["name"]: layer["chosen"]
            for stack in grids.values()
            for layer in stack["layers"]
            if len(layer["experts"]) > 1
        }
        assert chosen == {layer.layer: layer.experts_NK.tolist() for layer in routing}
        assert grids["encoder"]["tokens"] == tokenizer.pieces([*source, EOS_ID])
        assert grids["decoder"]["tokens"] == tokenizer.pieces([*target, EOS_ID])
