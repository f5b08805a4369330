"""Dividing a corpus, against what every division must keep, asked in plain sets of texts."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automoe.data.corpus import Pair
from automoe.data.splitting import OVERSHOOT, Division, divide, held_out_size
from automoe.data.survey import text_keys
from automoe.errors import InputError


def parts(pairs: list[Pair], division: Division) -> dict[str, list[Pair]]:
    return {name: [pairs[i] for i in getattr(division, name)] for name in ("train", "valid", "test")}


def folded(pairs: list[Pair]) -> set[str]:
    return {pair.source.casefold() for pair in pairs}


def book(documents: int, sentences: int) -> list[Pair]:
    """Documents with sentences of their own and some that all have."""
    return [
        Pair(f"sentence {s} of {d}" if s % 5 else f"Common {s}", f"Satz {d} {s}", f"page {d}")
        for d in range(documents)
        for s in range(sentences)
    ]


texts = st.text("abAB ", min_size=1, max_size=3)
corpora = st.lists(
    st.builds(Pair, texts, texts, st.sampled_from(["", "x", "y", "z"])), min_size=10, max_size=80
)


@given(corpora, st.integers(0, 8), st.integers(0, 8), st.sets(texts, max_size=3))
def test_no_source_is_in_two_parts_nor_in_a_set_kept_apart(pairs, valid, test, apart):
    try:
        division = divide(pairs, valid, test, text_keys(apart) if apart else None)
    except InputError:
        return  # too few different texts
    found = parts(pairs, division)
    sources = {name: folded(part) for name, part in found.items()}
    assert not sources["train"] & sources["valid"]
    assert not sources["train"] & sources["test"]
    assert not sources["valid"] & sources["test"]
    for part in sources.values():
        assert not part & {text.casefold() for text in apart}
    assert found["train"]
    assert bool(found["valid"]) == bool(valid)
    assert bool(found["test"]) == bool(test)
    assert len(found["valid"]) <= OVERSHOOT * valid
    assert len(found["test"]) <= OVERSHOOT * test
    assert sum(map(len, found.values())) + division.left_out == len(pairs)
    if division.by_document:
        named = {name: {p.document for p in part if p.document} for name, part in found.items()}
        assert not named["train"] & (named["valid"] | named["test"])
        assert not named["valid"] & named["test"]


def test_documents_are_whole_and_what_all_have_stays_in_the_training():
    pairs = book(documents=100, sentences=20)
    division = divide(pairs, 100, 100)
    found = parts(pairs, division)
    assert division.by_document
    documents = {name: {pair.document for pair in part} for name, part in found.items()}
    assert not documents["train"] & documents["test"]
    assert not documents["train"] & documents["valid"]
    assert not documents["valid"] & documents["test"]
    held_out = len(documents["valid"]) + len(documents["test"])
    assert len(found["train"]) == 20 * (100 - held_out)
    assert division.left_out == 4 * held_out
    assert {f"common {s}" for s in range(0, 20, 5)} <= folded(found["train"])
    assert 100 <= len(found["test"]) <= 125


def test_the_texts_decide_and_not_their_order():
    pairs = book(60, 20) + [Pair(f"alone {i}", f"allein {i}") for i in range(300)]
    shuffled = random.Random(3).sample(pairs, len(pairs))
    first, second = (parts(some, divide(some, 80, 60)) for some in (pairs, shuffled))
    for name in first:
        assert set(first[name]) == set(second[name])


def test_few_or_huge_documents_are_divided_by_sentence():
    pairs = book(3, 400)
    division = divide(pairs, 50, 50)
    assert not division.by_document
    found = parts(pairs, division)
    assert (len(found["valid"]), len(found["test"])) == (50, 50)
    assert not folded(found["train"]) & (folded(found["valid"]) | folded(found["test"]))


def test_a_sentence_that_occurs_all_the_time_does_not_make_up_a_set():
    pairs = [Pair("OK", "OK")] * 500 + [Pair(f"sentence {i}", f"Satz {i}") for i in range(500)]
    found = parts(pairs, divide(pairs, 50, 50))
    assert "ok" in folded(found["train"])
    assert (len(found["valid"]), len(found["test"])) == (50, 50)


def test_equal_pairs_are_held_out_once():
    pairs = [Pair(f"sentence {i % 200}", f"Satz {i % 200}") for i in range(400)]
    division = divide(pairs, 20, 20)
    for name in ("valid", "test"):
        part = parts(pairs, division)[name]
        assert len(part) == len(set(part)) > 0


def test_with_sets_given_only_their_sources_leave():
    pairs = [Pair(f"sentence {i}", "t", "d") for i in range(50)]
    division = divide(pairs, 0, 0, text_keys(["SENTENCE 7", "sentence 9"]))
    assert division.train.tolist() == [i for i in range(50) if i not in (7, 9)]
    assert len(division.valid) == len(division.test) == 0


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([Pair("a", "b")] * 9, "9 pairs: at least 10"),
        ([Pair("a", "b")] * 30, "too few have a source of their"),
    ],
)
def test_what_cannot_be_divided_is_told(pairs, expected):
    with pytest.raises(InputError) as caught:
        divide(pairs, 1, 1)
    assert expected in str(caught.value)


@given(st.integers(10, 10**9))
def test_sizes_are_sensible(pairs):
    size = held_out_size(pairs)
    assert 1 <= size <= 2000
    assert 2 * size <= pairs / 5 + 1
    assert held_out_size(pairs + 1000) >= size


def test_sizes_of_known_corpora():
    assert [held_out_size(n) for n in (20, 1000, 40_000, 50_000_000)] == [2, 100, 1000, 2000]


def test_a_large_corpus_is_divided_with_numbers_alone():
    """Two hundred thousand pairs in seconds: nothing is quadratic."""
    pairs = [Pair(f"s{i}", f"t{i}", f"d{i // 40}") for i in range(200_000)]
    division = divide(pairs, 2000, 2000)
    assert division.by_document
    assert np.all(np.diff(division.train) > 0)
