"""The finalists of a search, against their definition in words, and the distance between architectures."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, Expert, dense
from automoe.design.space import load_space
from automoe.errors import InputError
from automoe.search.candidate import Candidate
from automoe.search.finalists import choose_finalists, distance
from helpers.paths import RECIPES

COPY_TOY = load_space(RECIPES / "spaces" / "copy-toy.yaml")
SPACE = replace(
    COPY_TOY,
    encoder=replace(COPY_TOY.encoder, max_experts=3, top_k=(1, 2)),
    decoder=replace(COPY_TOY.decoder, layer_counts=(1, 2)),
)
SEEDS = st.integers(0, 2**32)
BASE = dense(width=8, ffn_size=16, heads=2, encoder_layers=2, decoder_layers=2)


def member(seed: int) -> Architecture:
    """A random one, dense half of the time."""
    rng = random.Random(seed)
    return (SPACE.dense() if rng.random() < 0.5 else SPACE).sample(rng)


def relative(seed: int, other: Architecture) -> Architecture:
    """A member in which few genes are unlike those of `other`."""
    return SPACE.mutate(other, 0.1, random.Random(seed))


def leaves(plain, place: str = "") -> dict[str, object]:
    """All numbers in nested lists and mappings by their place, and the length of each list."""
    if isinstance(plain, dict):
        parts = plain.items()
    elif isinstance(plain, list | tuple):
        parts = [*enumerate(plain), ("length", len(plain))]
    else:
        return {place: plain}
    found = {}
    for name, part in parts:
        found |= leaves(part, f"{place}/{name}")
    return found


def slow_distance(a: Architecture, b: Architecture) -> int:
    """Places in what a file would say of them where only one has a number, or they have others."""
    in_a, in_b = set(leaves(a.to_dict()).items()), set(leaves(b.to_dict()).items())
    return len({place for place, _ in in_a ^ in_b})


def slow_finalists(candidates, count, dense_wanted, min_distance, per_shape):
    """One place after another goes to the best candidate that may have it."""
    best = {}
    for candidate in candidates:
        known = best.get(candidate.architecture)
        if known is None or candidate.score < known.score:
            best[candidate.architecture] = candidate

    def is_dense(candidate):
        return candidate.architecture in SPACE.dense()

    dense_wanted = min(dense_wanted, len([c for c in best.values() if is_dense(c)]))
    chosen = []

    def shape(candidate):
        plain = candidate.architecture.to_dict()
        return [is_dense(candidate), *(len(v) if isinstance(v, list) else v for v in plain.values())]

    for any_shape, any_distance in ((False, False), (True, False), (True, True)):
        while True:
            places = count - len(chosen)
            owed = dense_wanted - len([c for c in chosen if is_dense(c)])
            admissible = [
                c
                for c in best.values()
                if c not in chosen
                and places > (0 if is_dense(c) else max(owed, 0))
                and (any_shape or sum(shape(c) == shape(x) for x in chosen) < per_shape)
                and (
                    any_distance
                    or all(slow_distance(c.architecture, x.architecture) >= min_distance for x in chosen)
                )
            ]
            if not admissible:
                break
            chosen.append(min(admissible, key=lambda c: (c.score, c.costs["place"])))
    return tuple(sorted(chosen, key=lambda c: c.score))


@pytest.mark.parametrize(
    ("other", "genes"),
    [
        (BASE, 0),
        (replace(BASE, encoder_width=16), 1),
        (replace(BASE, decoder_width=16, qkv_dim=16), 2),
        (replace(BASE, encoder=(*BASE.encoder[:1], EncoderLayer(4, (32,)))), 2),
        (replace(BASE, decoder=(*BASE.decoder[:1], DecoderLayer(2, 4, (16,), 1, 2))), 2),
        (replace(BASE, decoder=(DecoderLayer(0, 2, (16,), mixer="ssru"), BASE.decoder[1])), 1),
        # One more expert: their number and its size; that a token goes to both is a third gene.
        (replace(BASE, encoder=(EncoderLayer(2, (16, 16)), BASE.encoder[1])), 2),
        (replace(BASE, encoder=(EncoderLayer(2, (16, 8), 2), BASE.encoder[1])), 3),
        # One layer less: their number, and its heads, experts a token, number of experts and expert.
        (replace(BASE, encoder=BASE.encoder[:1]), 5),
        # In the decoder also the heads of its cross-attention and the encoder layers that attends to.
        (replace(BASE, decoder=BASE.decoder[:1]), 7),
    ],
)
def test_the_distance_counts_genes(other, genes):
    assert distance(BASE, other) == distance(other, BASE) == genes


@settings(max_examples=100)
@given(a=SEEDS, b=SEEDS, c=SEEDS)
def test_the_distance_is_a_metric_and_what_comparing_their_files_gives(a, b, c):
    first = member(a)
    second, third = relative(b, first), member(c)
    for x, y in ((first, second), (second, third), (first, third)):
        assert distance(x, y) == distance(y, x) == slow_distance(x, y)
        assert (distance(x, y) == 0) == (x == y)
    assert distance(first, third) <= distance(first, second) + distance(second, third)
    assert distance(first, second) <= distance(first, third) + distance(third, second)


@settings(max_examples=200)
@given(
    seeds=st.lists(st.integers(0, 30), min_size=1, max_size=14),
    data=st.data(),
    count=st.integers(1, 8),
    min_distance=st.integers(0, 25),
    per_shape=st.integers(1, 4),
)
def test_the_finalists_are_those_that_get_one_place_after_another(
    seeds, data, count, min_distance, per_shape
):
    scores = data.draw(st.lists(st.integers(0, 10), min_size=len(seeds), max_size=len(seeds)))
    dense_wanted = data.draw(st.integers(0, count))
    candidates = [
        Candidate(member(seed), {"place": index}, float(score))
        for index, (seed, score) in enumerate(zip(seeds, scores, strict=True))
    ]
    found = choose_finalists(
        candidates, count, dense=dense_wanted, min_distance=min_distance, per_shape=per_shape
    )
    expected = slow_finalists(candidates, count, dense_wanted, min_distance, per_shape)
    assert [c.score for c in found] == [c.score for c in expected]
    assert {c.costs["place"] for c in found} == {c.costs["place"] for c in expected}


def scored(*architectures: Architecture) -> list[Candidate]:
    """From the best to the worst."""
    return [Candidate(architecture, {}, float(index)) for index, architecture in enumerate(architectures)]


def sparse(*sizes: int) -> Architecture:
    return replace(BASE, encoder=(EncoderLayer(2, sizes), BASE.encoder[1]))


def test_near_ones_are_passed_over_while_there_are_others_and_dense_ones_have_places_of_their_own():
    near, far = sparse(8, 9), sparse(1, 2, 3, 4, 5, 6)
    wide = replace(BASE, encoder_width=16, decoder_width=16)
    candidates = scored(sparse(8, 8), near, far, sparse(7, 8), BASE, wide)
    shuffled = random.Random(0).sample(candidates, len(candidates))
    best, second, third, _, first_dense, second_dense = candidates

    def chosen(count, dense_wanted, min_distance):
        return choose_finalists(
            shuffled, count, dense=dense_wanted, min_distance=min_distance, per_shape=count
        )

    assert chosen(3, 0, 0) == (best, second, third)
    assert chosen(3, 0, 2) == (best, third, first_dense)
    assert chosen(3, 1, 0) == (best, second, first_dense)
    assert chosen(3, 2, 0) == (best, first_dense, second_dense)
    assert chosen(2, 0, 1_000) == (best, second)
    assert chosen(2, 1, 1_000) == (best, first_dense)
    assert chosen(100, 50, 4) == tuple(candidates)


def test_an_architecture_given_twice_counts_once_with_its_better_score():
    worse, better = Candidate(BASE, {}, 2.0), Candidate(BASE, {"flops": 1.0}, 1.0)
    assert choose_finalists([worse, better, worse], 3, dense=1, min_distance=0, per_shape=3) == (better,)


def test_experts_alike_in_number_and_unlike_in_size_are_unlike():
    assert distance(sparse(8, 0, 8), replace(BASE, encoder=(EncoderLayer(2, (Expert(8),) * 3),) * 2)) == 1 + 4


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({"candidates": []}, ["relax the bounds"]),
        ({"count": 0, "dense": 0}, ["count: expected at least 1, got 0"]),
        ({"dense": 4}, ["dense: expected 0 to 3"]),
        ({"dense": -1, "min_distance": -2}, ["dense: expected 0 to 3", "min_distance: expected at least 0"]),
        ({"per_shape": 0}, ["per_shape: expected at least 1"]),
        ({"candidates": [], "count": -1}, ["relax", "count", "dense"]),
    ],
)
def test_what_cannot_be_chosen_from_is_told_at_once(arguments, problems):
    values = {"candidates": scored(BASE), "count": 3, "dense": 1, "min_distance": 2, "per_shape": 1}
    values |= arguments
    with pytest.raises(InputError) as caught:
        choose_finalists(values.pop("candidates"), values.pop("count"), **values)
    assert len(caught.value.problems) == len(problems)
    assert all(part in told for part, told in zip(problems, caught.value.problems, strict=True))


def test_an_unscored_candidate_is_a_mistake():
    with pytest.raises(ValueError, match="was not scored"):
        choose_finalists([Candidate(BASE)], 1, dense=0, min_distance=0, per_shape=1)
