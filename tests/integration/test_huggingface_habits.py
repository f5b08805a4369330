"""An exported Hugging Face folder does what `transformers` documents, or says plainly that it does not."""

import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest

from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.model_options import ModelOptions
from automoe.export.huggingface import export_huggingface
from automoe.inference.backends import make_engine
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.model_folder import save_model
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer
from helpers.paths import REPOSITORY

TEXTS = ["The window is closed.", "Open a new file and save it.", "Close."]
ARCHITECTURE = Architecture(
    encoder_width=16,
    decoder_width=24,
    qkv_dim=16,
    encoder=(EncoderLayer(4, (32, 16)), EncoderLayer(2, (32,))),
    decoder=(DecoderLayer(4, 2, (32, 16)), DecoderLayer(2, 4, (32,), encoder_layers_attended=2)),
)


@pytest.fixture(scope="module")
def parts() -> tuple[Transformer, Tokenizer]:
    """A model that was never trained: it ends no sentence early, so limits are felt."""
    rng = random.Random(3)
    words = " ".join(TEXTS).replace(".", "").split()
    sentences = [" ".join(rng.choices(words, k=rng.randint(2, 8))) + rng.choice(".,!?") for _ in range(300)]
    tokenizer = train_tokenizer([*TEXTS, *sentences], 50, "bpe")
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size, ModelOptions("post"))
    model.initialise(5)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def answers(parts: tuple[Transformer, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All that a program without AutoMoE got out of the folder."""
    folder = tmp_path_factory.mktemp("habits")
    save_model(folder / "model", *parts, {"source_language": "en", "target_language": "de"})
    export_huggingface(folder / "model", folder / "exported")
    (folder / "question.json").write_text(json.dumps({"folder": str(folder / "exported"), "texts": TEXTS}))
    client = REPOSITORY / "tests" / "helpers" / "huggingface_habits.py"
    done = subprocess.run(
        [sys.executable, client, folder / "question.json", folder / "answers.json"],
        cwd=folder,
        env=os.environ | {"HF_HOME": str(folder / "home"), "HF_MODULES_CACHE": str(folder / "modules")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    return found


def ours(parts: tuple[Transformer, Tokenizer], **settings: Any) -> list[list[list[int]]]:
    """The tokens of each text's hypotheses, without BOS and end-of-sentence."""
    model, tokenizer = parts
    translator = Translator(make_engine(model), tokenizer, BeamSettings(**settings))
    sources = [[*tokens, EOS_ID] for tokens in tokenizer.encode(TEXTS)]
    return [[list(one.tokens) for one in found] for found in translator.search(sources, 1000)]


def best(parts: tuple[Transformer, Tokenizer], **settings: Any) -> list[list[int]]:
    return [hypotheses[0] for hypotheses in ours(parts, **settings)]


def bare(sequence: list[int]) -> list[int]:
    """Tokens between BOS and the first end-of-sentence."""
    assert sequence[0] == BOS_ID
    end = sequence.index(EOS_ID) if EOS_ID in sequence else len(sequence)
    assert set(sequence[end:]) <= {EOS_ID, PAD_ID}
    return sequence[1:end]


def texts_of(parts: tuple[Transformer, Tokenizer], tokens: list[list[int]]) -> list[dict[str, str]]:
    return [{"translation_text": text} for text in parts[1].decode(tokens)]


@pytest.mark.parametrize(
    "name",
    [
        "beams",
        "config says nothing",
        "huge",
        "left",
        "wide",
        "without mask",
        "encoded",
        "train",
        "moved",
        "double",
        "saved",
    ],
)
def test_the_translation_is_ours_however_it_is_asked(
    parts: tuple[Transformer, Tokenizer], answers: dict[str, Any], name: str
) -> None:
    assert list(map(bare, answers[name])) == best(parts)


@pytest.mark.parametrize(
    ("names", "settings"),
    [
        (["greedy"], {"beam_size": 1}),
        (
            [
                "max_length",
                "of numpy",
                "max_new_tokens",
                "both",
                "config max_length",
                "config max_new_tokens",
                "own max_length",
                "own max_new_tokens",
            ],
            {"max_length_ratio": 0, "max_length_extra": 4},
        ),
        (["min_length", "min_new_tokens", "own min_length"], {"min_length": 12}),
        (["longer than its limit"], {"min_length": 61}),
        (["length_penalty"], {"length_penalty": 0.0}),
    ],
)
def test_an_argument_means_what_our_setting_means(
    parts: tuple[Transformer, Tokenizer], answers: dict[str, Any], names: list[str], settings: dict[str, Any]
) -> None:
    expected = best(parts, **settings)
    for name in names:
        assert list(map(bare, answers[name])) == expected, name


def test_the_settings_above_differ(parts: tuple[Transformer, Tokenizer]) -> None:
    """Else the test would not notice one that is ignored."""
    short = {"max_length_ratio": 0, "max_length_extra": 4}
    assert best(parts, **short) != best(parts)
    assert best(parts, min_length=61) != best(parts, min_length=12)


def test_limits_within_which_nothing_can_end_cut(answers: dict[str, Any]) -> None:
    assert {len(row) for row in answers["one token"]} == {2}
    assert {len(row) for row in answers["longer than asked"]} == {7}
    assert not any(EOS_ID in row for row in answers["longer than asked"])
    assert all(row[:2] == [BOS_ID, 5] and len(row) <= 6 for row in answers["prompt"])


def test_several_translations_and_their_scores(
    parts: tuple[Transformer, Tokenizer], answers: dict[str, Any]
) -> None:
    expected = best(parts)
    found = answers["n best"]
    assert len(found) == 9
    assert [bare(row) for row in found[::3]] == expected
    assert len({tuple(row) for row in found}) == 9
    assert len(answers["sampled"]) == 9
    scored = answers["scored"]
    assert [bare(row) for row in scored["sequences"][::2]] == expected
    for score, total, length in zip(scored["scores"], scored["sums"], scored["lengths"], strict=True):
        assert score == pytest.approx(total / length**0.6, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no room", "max_length: 1 leaves no room"),
        ("nothing new", "max_new_tokens: 0 leaves no room"),
        ("no beams", "num_beams: expected a whole number, at least 1, got 0"),
        ("half a beam", "num_beams: expected a whole number, at least 1, got 2.5"),
        ("beams as text", "num_beams: expected a number, got '2'"),
        ("endless", "max_new_tokens: expected a number, got inf"),
        ("length as text", "max_length: expected a number, got '5'"),
        ("no penalty", "length_penalty: expected a number, got nan"),
        ("misspelt", "max_lenght"),
        ("attentions", "output_attentions"),
        ("hidden states", "output_hidden_states"),
        ("static cache", "cache_implementation: 'static'"),
        ("guidance", "guidance_scale"),
        ("healing", "token_healing"),
        ("lookup", "prompt_lookup_num_tokens"),
        ("a list", "expected token ids as a tensor, got list"),
        ("a batch", "generate(**batch)"),
        ("a vector", "got shape (2,)"),
        ("no sentence", "got shape (0, 3)"),
        ("no token", "got shape (2, 0)"),
        ("nothing", "expected token ids"),
        ("forward attentions", "attention weights"),
    ],
)
def test_what_cannot_be_done_is_refused_plainly(answers: dict[str, Any], name: str, told: str) -> None:
    assert told in answers[name]["refused"]


def test_the_tokenizer_does_what_is_documented(
    parts: tuple[Transformer, Tokenizer], answers: dict[str, Any]
) -> None:
    source, target = ([*tokens, EOS_ID] for tokens in parts[1].encode(TEXTS[:2]))
    assert answers["text_target"] == {
        "input_ids": source,
        "attention_mask": [1] * len(source),
        "labels": target,
    }
    assert answers["skipped"] == TEXTS[0]
    assert answers["kept"].replace("<pad>", "") == f"{TEXTS[0]}</s>"
    assert answers["cut"] == [*source[:5], EOS_ID]
    assert answers["half"] == 3
    assert answers["forward tuple"] == 2
    assert answers["saved half"] == "torch.float16"


@pytest.mark.parametrize(
    "name",
    [
        "several",
        "arguments",
        "a tuple",
        "keyword",
        "generator",
        "batched",
        "truncation",
        "clean",
        "languages",
        "named",
    ],
)
def test_a_pipeline_translates_however_it_is_asked(
    parts: tuple[Transformer, Tokenizer], answers: dict[str, Any], name: str
) -> None:
    assert answers["pipeline"][name] == texts_of(parts, best(parts))


def test_a_pipeline_of_what_was_saved_translates(
    parts: tuple[Transformer, Tokenizer], answers: dict[str, Any]
) -> None:
    expected = texts_of(parts, best(parts))
    assert answers["saved pipeline"] == expected
    assert answers["pipeline saved"] == expected


def test_a_pipeline_returns_what_is_asked_for(
    parts: tuple[Transformer, Tokenizer], answers: dict[str, Any]
) -> None:
    found = answers["pipeline"]
    expected = texts_of(parts, best(parts))
    short = texts_of(parts, best(parts, max_length_ratio=0, max_length_extra=4))
    assert found["one"] == expected[:1]
    assert found["empty"] == []
    assert found["max_length"] == found["made with"] == short
    assert [len(one) for one in found["n best"]] == [3, 3, 3]
    assert [one[0] for one in found["n best"]] == expected
    assert found["n best of one"] == found["n best"][0]
    assert [bare(row) for row in found["tensors"]] == best(parts)
    blank = [{"translation_text": ""}] * 2
    assert found["blank"] == [blank, found["n best"][0][:2], blank]
    assert found["half"] == 3
    assert len(found["truncated"]) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("another language", "src_lang: this model has one pair of languages, and 'fr' is not its 'en'"),
        ("another target", "tgt_lang: "),
        ("nothing", "return_text=False"),
        ("a dictionary", "model.generate"),
        ("a number", "expected a text or a list of texts, got 3"),
        ("half a pair", "half a surrogate pair is no text"),
        ("none", "expected a text or a list of texts, got None"),
        ("misspelt", "max_lenght"),
    ],
)
def test_what_a_pipeline_cannot_do_is_refused_plainly(answers: dict[str, Any], name: str, told: str) -> None:
    assert told in answers["pipeline"][name]["refused"]
