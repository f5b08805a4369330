"""Batches: every pair once an epoch, the same order for the same seed, resumable anywhere."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFace
from tokenizers import models, pre_tokenizers

from automoe.data.batching import Batch, BatchStream, TokenisedCorpus, fixed_batches, joined
from automoe.data.corpus import Pair
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS
from automoe.errors import InputError

NUMBERS = 2000
Ids = tuple[tuple[int, ...], tuple[int, ...]]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The number n is the token n + 4."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL_TOKENS, *map(str, range(NUMBERS))])}
    inner = HuggingFace(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(inner)


def pairs_of(lengths: list[tuple[int, int]]) -> list[Pair]:
    """Pairs of these lengths; the first number of each side tells the pair."""
    return [
        Pair(
            " ".join([str(i), *(str(j % 7) for j in range(source - 1))]),
            " ".join([str(i), *(str(j % 5) for j in range(target - 1))]),
        )
        for i, (source, target) in enumerate(lengths)
    ]


LENGTHS = [(1 + i * i % 23, 1 + i * 7 % 19) for i in range(300)]


@pytest.fixture(scope="module")
def corpus(tokenizer) -> TokenisedCorpus:
    return TokenisedCorpus.build(pairs_of(LENGTHS), tokenizer, 100)


def content(batch: Batch) -> list[Ids]:
    """The pairs in a batch, after checking its layout against the definition."""
    found = []
    for source, target_in, target_out in zip(
        batch.source_BS.tolist(), batch.target_in_BT.tolist(), batch.target_out_BT.tolist(), strict=True
    ):
        ids = tuple(t for t in source if t != PAD_ID)[:-1]
        answer = tuple(t for t in target_out if t != PAD_ID)[:-1]
        for row, sentence in (
            (source, (*ids, EOS_ID)),
            (target_in, (BOS_ID, *answer)),
            (target_out, (*answer, EOS_ID)),
        ):
            assert row == [*sentence, *[PAD_ID] * (len(row) - len(sentence))]
        found.append((ids, answer))
    assert batch.source_tokens == sum(len(s) + 1 for s, _ in found)
    assert batch.target_tokens == sum(len(t) + 1 for _, t in found)
    assert batch.source_BS.dtype == batch.target_in_BT.dtype == batch.target_out_BT.dtype == torch.int64
    return found


def all_pairs(corpus: TokenisedCorpus) -> list[Ids]:
    return [
        (tuple(corpus.sentence("source", i)), tuple(corpus.sentence("target", i))) for i in range(len(corpus))
    ]


def epochs(stream: BatchStream, first: int, last: int) -> list[list[Batch]]:
    """The batches of whole epochs `first` to `last`, told apart by the stream's own state."""
    found: dict[int, list[Batch]] = {}
    for batch in stream:
        epoch = stream.state_dict()["epoch"]
        if epoch > last:
            break
        found.setdefault(epoch, []).append(batch)
    return [found[epoch] for epoch in range(first, last + 1)]


def test_a_corpus_keeps_tokens_and_order(tokenizer, corpus):
    pairs = pairs_of(LENGTHS)
    encoded = zip(
        tokenizer.encode([p.source for p in pairs]), tokenizer.encode([p.target for p in pairs]), strict=True
    )
    assert all_pairs(corpus) == [(tuple(s), tuple(t)) for s, t in encoded]


def test_too_long_pairs_are_left_out(tokenizer):
    lengths = [(3, 3), (11, 2), (10, 10), (2, 11), (1, 1)]
    kept = TokenisedCorpus.build(pairs_of(lengths), tokenizer, 10)
    assert [(len(s), len(t)) for s, t in all_pairs(kept)] == [(3, 3), (10, 10), (1, 1)]
    with pytest.raises(InputError, match="max_tokens"):
        TokenisedCorpus.build(pairs_of([(3, 3)]), tokenizer, 2)


def test_building_in_chunks_changes_nothing(tokenizer, corpus, monkeypatch):
    monkeypatch.setattr("automoe.data.batching.ENCODED", 7)
    assert all_pairs(TokenisedCorpus.build(pairs_of(LENGTHS), tokenizer, 100)) == all_pairs(corpus)


def test_a_saved_corpus_is_the_same(corpus, tmp_path):
    corpus.save(tmp_path / "train")
    loaded = TokenisedCorpus.load(tmp_path / "train")
    assert all_pairs(loaded) == all_pairs(corpus)
    assert len(loaded) == len(corpus)


@pytest.mark.parametrize("name", ["source.tokens.npy", "target.offsets.npy"])
def test_a_damaged_corpus_is_refused(corpus, tmp_path, name):
    corpus.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-40])
    with pytest.raises(InputError, match="damaged"):
        TokenisedCorpus.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="damaged"):
        TokenisedCorpus.load(tmp_path)


def test_files_of_two_corpora_are_refused(tokenizer, corpus, tmp_path):
    corpus.save(tmp_path / "one")
    TokenisedCorpus.build(pairs_of(LENGTHS[:50]), tokenizer, 100).save(tmp_path / "two")
    (tmp_path / "two" / "source.tokens.npy").replace(tmp_path / "one" / "source.tokens.npy")
    with pytest.raises(InputError, match="belong together"):
        TokenisedCorpus.load(tmp_path / "one")


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60),
    batch_tokens=st.integers(1, 200),
    seed=st.integers(0, 5),
    bucketed=st.sampled_from([1, 5, 8192]),
)
def test_every_pair_once_an_epoch_within_the_budget(tokenizer, lengths, batch_tokens, seed, bucketed):
    corpus = TokenisedCorpus.build(pairs_of(lengths), tokenizer, 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("automoe.data.batching.BUCKETED", bucketed)
        runs = [*epochs(BatchStream(corpus, batch_tokens, seed), 0, 1), fixed_batches(corpus, batch_tokens)]
    for batches in runs:
        assert sorted(itertools.chain.from_iterable(map(content, batches))) == sorted(all_pairs(corpus))
        for batch in batches:
            assert len(batch.source_BS) == 1 or (
                batch.target_out_BT.numel() <= batch_tokens and batch.source_BS.numel() <= 2 * batch_tokens
            )


def test_order_depends_on_seed_and_epoch_alone(corpus):
    def order(seed: int) -> list[list[list[Ids]]]:
        return [list(map(content, batches)) for batches in epochs(BatchStream(corpus, 60, seed), 0, 1)]

    first = order(1)
    assert first == order(1)
    assert first != order(2)
    assert first[0] != first[1]
    # Not only the order of the batches changes, also which pairs meet in one.
    assert {frozenset(batch) for batch in first[0]} != {frozenset(batch) for batch in first[1]}


@pytest.mark.parametrize("read", [0, 1, 17, 100, 250])
def test_a_resumed_stream_continues_as_if_never_stopped(corpus, read):
    uninterrupted = BatchStream(corpus, 60, 3)
    for _ in range(read):
        next(uninterrupted)
    resumed = BatchStream(corpus, 60, 3)
    resumed.load_state_dict(uninterrupted.state_dict())
    for _ in range(150):
        assert content(next(resumed)) == content(next(uninterrupted))


def test_little_is_padding(corpus):
    (batches,) = epochs(BatchStream(corpus, 60, 1), 0, 0)
    padded = sum(batch.source_BS.numel() + batch.target_out_BT.numel() for batch in batches)
    tokens = sum(batch.source_tokens + batch.target_tokens for batch in batches)
    shuffled = sum(2 * 23 for _ in LENGTHS)  # what batches of any lengths together would cost
    assert tokens <= padded < tokens + (shuffled - tokens) / 2


def test_fixed_batches_of_some_sentences(corpus):
    chosen = [5, 3, 200]
    batches = fixed_batches(corpus, 1000, chosen)
    assert sorted(itertools.chain.from_iterable(map(content, batches))) == sorted(
        all_pairs(corpus)[index] for index in chosen
    )
    assert fixed_batches(corpus, 1000, []) == []


def test_joined_corpora_are_one_of_all_pairs_in_their_order(tokenizer):
    first, second = pairs_of([(3, 1), (1, 4), (2, 2)]), pairs_of([(5, 2), (1, 1)])
    parts = [TokenisedCorpus.build(pairs, tokenizer, 10) for pairs in (first, second)]
    both, expected = joined(*parts), TokenisedCorpus.build([*first, *second], tokenizer, 10)
    assert len(both) == 5
    for side in ("source", "target"):
        assert both.tokens[side].tolist() == expected.tokens[side].tolist()
        assert both.offsets[side].tolist() == expected.offsets[side].tolist()
        assert both.tokens[side].dtype == expected.tokens[side].dtype
        assert both.offsets[side].dtype == expected.offsets[side].dtype
