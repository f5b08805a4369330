"""The tokens that a source makes likely: chosen, kept in a file, read by a library and without it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import save_file

from automoe.data.likely_tokens import read_tensors
from automoe.data.shortlist import Shortlist, random_shortlister
from automoe.data.vocabulary import EOS_ID, PAD_ID, SPECIAL_TOKENS
from automoe.errors import InputError
from helpers.toy_pairs import VOCABULARY as V
from helpers.toy_pairs import corpus_of, random_pairs

K = 5


@pytest.fixture(scope="module")
def learned() -> Shortlist:
    return Shortlist.learn(corpus_of(random_pairs(1, 300)), V, kept=K)


@given(
    tokens=arrays(np.uint8, (V, K), elements=st.integers(0, V - 1)),
    weights=arrays(np.uint16, (V, K), elements=st.sampled_from([0, 1, 500, 65_535])),
    shares=arrays(np.float32, (V,), elements=st.sampled_from([0.0, 0.5, 2.0, 700.0])),
    sources=st.lists(st.lists(st.integers(3, V - 1), max_size=5), min_size=1, max_size=3),
    size=st.integers(5, V + 3),
)
def test_a_sentence_has_the_tokens_expected_most_often(tokens, weights, shares, sources, size) -> None:
    """Against sums over dictionaries, and a sort."""
    expected: set[int] = set()
    for source in sources:
        scores = {token: float(shares[token]) for token in range(V)}
        for token in [*source, EOS_ID]:
            for other, weight in zip(tokens[token].tolist(), weights[token].tolist(), strict=True):
                scores[other] += weight
        for token in {*source, EOS_ID}:
            scores[token] += 65_535
        ranked = sorted(range(V), key=lambda token: (token >= len(SPECIAL_TOKENS), -scores[token], token))
        expected |= set(ranked[:size])
    longest = max(map(len, sources)) + 1
    source_BS = np.array([[*s, EOS_ID] + [PAD_ID] * (longest - 1 - len(s)) for s in sources])
    found = Shortlist(tokens, weights, shares).of(source_BS, size)
    assert found.dtype == np.int64
    assert found.tolist() == sorted(expected)
    assert found[:4].tolist() == [0, 1, 2, 3]


def test_what_was_learned_is_likely(learned: Shortlist) -> None:
    """Token t becomes t + 10 or t + 15; 29 comes in by itself."""
    found = learned.of(np.array([[5, 8, EOS_ID]]), size=11)
    assert {5, 8, 15, 20, 18, 23, 29} | {0, 1, 2, 3} == set(found.tolist())
    assert (learned.sized(11)(np.array([[5, 8, EOS_ID]])) == found).all()


def test_a_file_holds_it_for_the_library_and_without(learned: Shortlist, tmp_path) -> None:
    learned.save(tmp_path / "shortlist.safetensors")
    loaded = Shortlist.load(tmp_path / "shortlist.safetensors", V)
    plain = read_tensors(tmp_path / "shortlist.safetensors")
    assert (loaded.tokens_VK.dtype, loaded.vocabulary_size) == (np.uint8, V)
    for name, tensor in plain.items():
        mine = getattr(learned, f"{name}_{'V' if name == 'shares' else 'VK'}")
        theirs = getattr(loaded, f"{name}_{'V' if name == 'shares' else 'VK'}")
        assert tensor.dtype == mine.dtype == theirs.dtype
        assert (tensor == mine).all()
        assert (theirs == mine).all()
    assert set(plain) == {"tokens", "weights", "shares"}


def test_another_vocabulary_or_a_damaged_file_is_refused(learned: Shortlist, tmp_path) -> None:
    path = tmp_path / "shortlist.safetensors"
    learned.save(path)
    with pytest.raises(InputError, match="not this model's") as refused:
        Shortlist.load(path, V + 1)
    assert f"it is of {V} tokens" in refused.value.problems[0]
    content = path.read_bytes()
    for damaged in (content[:-1], content[:20], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged or no shortlist"):
            Shortlist.load(path, V)
    good = {"tokens": learned.tokens_VK, "weights": learned.weights_VK, "shares": learned.shares_V}
    for wrong in (
        {"tokens": learned.tokens_VK + np.uint8(V)},
        {"tokens": learned.tokens_VK.astype(np.int64)},
        {"tokens": learned.tokens_VK[0]},
        {"weights": learned.weights_VK[:, 1:].copy()},
        {"weights": learned.weights_VK.astype(np.float32)},
        {"shares": learned.shares_V[1:].copy()},
    ):
        save_file(good | wrong, path)
        with pytest.raises(InputError, match="damaged or no shortlist"):
            Shortlist.load(path, V)
    path.unlink()
    with pytest.raises(InputError, match="damaged or no shortlist"):
        Shortlist.load(path, V)


def test_random_ones_have_the_size_asked_for() -> None:
    choose = random_shortlister(12, V)
    first, second = (choose(np.zeros((3, 4), np.int64)).tolist() for _ in range(2))
    for found in (first, second):
        assert found[:4] == [0, 1, 2, 3]
        assert found == sorted(set(found))
        assert len(found) == 12
    assert first != second
    assert random_shortlister(V + 9, V)(np.zeros((1, 1), np.int64)).tolist() == list(range(V))
