"""The vocabulary: text comes back, training repeats exactly, text cannot forge special tokens."""

import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.data.corpus import CorpusSource, load_pairs
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.data.vocabulary import SPECIAL_TOKENS, UNK_ID
from automoe.errors import InputError
from helpers.paths import CORPORA, REPOSITORY

CORPUS = CORPORA / "libreoffice-help.en-de.valid.tsv.xz"
TEXTS = [
    *(text for pair in load_pairs(CorpusSource(path=str(CORPUS)))[0] for text in (pair.source, pair.target)),
    *["an </s> in the <unk> text", "1 < 2 / 3 > 4"] * 5,
]
SIZE = 600
FREQUENT = sorted(char for char, count in Counter("".join(TEXTS)).items() if count > 5)
KINDS = ("unigram", "bpe")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request) -> Tokenizer:
    return train_tokenizer(TEXTS, SIZE, request.param)


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def test_the_size_is_exact_and_the_special_tokens_come_first(tokenizer, tmp_path):
    assert tokenizer.vocabulary_size == SIZE
    tokenizer.save(tmp_path / "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    added = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    assert [(token["id"], token["content"]) for token in added] == list(enumerate(SPECIAL_TOKENS))
    assert all(token["special"] for token in added)


@settings(deadline=None, max_examples=200)
@given(texts=st.lists(st.text(st.sampled_from([*FREQUENT, " ", "\t", "\u0308"]), max_size=40), max_size=5))
def test_text_comes_back(tokenizer, texts):
    ids = tokenizer.encode(texts)
    known = [text for text, row in zip(texts, ids, strict=True) if UNK_ID not in row]
    # u + combining dots is one letter in NFC; on a consonant the dots are a character nobody trained on.
    assert all(text in known for text in texts if set(normal(text)) <= set(FREQUENT))
    decoded = tokenizer.decode([row for row in ids if UNK_ID not in row])
    assert decoded == [normal(text) for text in known]


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=60))
def test_any_text_is_encoded_without_padding_bos_or_eos(tokenizer, text):
    (ids,) = tokenizer.encode([text])
    assert all(UNK_ID <= token < tokenizer.vocabulary_size for token in ids)


def test_a_spelled_out_special_token_is_text(tokenizer):
    assert tokenizer.decode(tokenizer.encode(["the </s> row </s>"])) == ["the </s> row </s>"]
    assert UNK_ID not in tokenizer.encode(["the </s> row"])[0]


def test_an_unknown_character_is_unknown(tokenizer):
    (ids,) = tokenizer.encode(["row 漢 row"])
    assert ids.count(UNK_ID) == 1
    assert tokenizer.encode(["", "  "]) == [[], []]


def test_frequent_words_are_one_token(tokenizer):
    assert list(map(len, tokenizer.encode(["the", "The", "der", "und", "Sie"]))) == [1] * 5
    assert sum(map(len, tokenizer.encode(TEXTS))) < sum(map(len, TEXTS)) / 2


def test_a_saved_tokenizer_encodes_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    texts = [*TEXTS, "a </s> b"]
    assert loaded.encode(texts) == tokenizer.encode(texts)
    assert loaded.vocabulary_size == tokenizer.vocabulary_size


@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_the_same_file_in_another_process(kind, tmp_path):
    program = (
        "import sys, test_tokenizer as t\nt.train_tokenizer(t.TEXTS, t.SIZE, sys.argv[1]).save(sys.argv[2])"
    )
    for name in ("a.json", "b.json"):
        command = [sys.executable, "-c", program, kind, str(tmp_path / name)]
        path = os.pathsep.join([str(Path(__file__).parent), str(REPOSITORY / "tests")])
        subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True, timeout=100)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_and_the_smallest_size_are_said_and_work(kind):
    few = ["a cat", "a dog", "the cats"]
    for asked, bound in ((4000, "at most"), (8, "at least")):
        with pytest.raises(InputError) as caught:
            train_tokenizer(few, asked, kind)
        assert bound in str(caught.value)
        reachable = int(str(caught.value).split(bound)[1].split()[0])
        assert train_tokenizer(few, reachable, kind).vocabulary_size == reachable


@pytest.mark.parametrize("texts", [[], ["", "  "]])
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_no_vocabulary(texts, kind):
    with pytest.raises(InputError, match="empty"):
        train_tokenizer(texts, 100, kind)


def test_what_is_no_tokenizer_of_ours_is_refused(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(InputError, match="cannot be read"):
        Tokenizer.load(path)
    tokenizer.save(path)
    whole = path.read_text(encoding="utf-8")
    for damaged in (whole[: len(whole) // 2], "", "{}", '{"model": 3}'):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(InputError, match="is not a tokenizer"):
            Tokenizer.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not a tokenizer"):
        Tokenizer.load(path)
    path.write_text(whole.replace("</s>", "[SEP]"), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Tokenizer.load(path)
    assert "token 2" in str(caught.value)
    assert "'</s>'" in str(caught.value)
