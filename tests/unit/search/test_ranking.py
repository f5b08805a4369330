"""Ranks by inherited and by own losses, by counting pairs; members that are spread over a space."""

import math
import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.design.space import load_space
from automoe.errors import InputError
from automoe.search.ranking import Fidelity, Member, fidelity, spread_members
from helpers import toy_space
from helpers.paths import RECIPES
from helpers.toy_space import ToySpace

ARCHITECTURES = list(ToySpace().members())
DEMO = load_space(RECIPES / "spaces" / "demo.yaml")
# Of its random members one in thousands is dense.
MANY_EXPERTS = replace(
    DEMO, encoder=replace(DEMO.encoder, max_experts=7), decoder=replace(DEMO.decoder, max_experts=7)
)


def members(losses, bleu=None):
    """From pairs of an own and an inherited loss."""
    bleu = bleu or [None] * len(losses)
    return [Member(a, *pair, b) for a, pair, b in zip(ARCHITECTURES, losses, bleu, strict=False)]


def sign(value):
    return (value > 0) - (value < 0)


def slow_tau_b(pairs):
    """Kendall 1945: concordant less discordant pairs, over the root of the pairs untied in each."""
    signs = [(sign(a[0] - b[0]), sign(a[1] - b[1])) for a, b in combinations(pairs, 2)]
    untied = math.prod(sum(pair[i] != 0 for pair in signs) for i in range(2))
    return sum(x * y for x, y in signs) / math.sqrt(untied) if untied else 0.0


def slow_spearman(pairs):
    """The correlation of the ranks, equals having the mean of theirs."""
    columns = []
    for i in range(2):
        values = [pair[i] for pair in pairs]
        ranks = [sum(x < v for x in values) + (sum(x == v for x in values) + 1) / 2 for v in values]
        columns.append([rank - sum(ranks) / len(ranks) for rank in ranks])
    own, inherited = columns
    squares = sum(x * x for x in own) * sum(y * y for y in inherited)
    return sum(x * y for x, y in zip(own, inherited, strict=True)) / math.sqrt(squares) if squares else 0.0


@settings(max_examples=200)
@given(pairs=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=12))
def test_rank_correlations_are_what_counting_pairs_gives(pairs):
    found = fidelity(members(pairs))
    assert found.members == len(pairs)
    assert found.kendall_tau == pytest.approx(slow_tau_b(pairs), abs=1e-9)
    assert found.spearman == pytest.approx(slow_spearman(pairs), abs=1e-9)
    best_inherited = min(inherited for _, inherited in pairs)
    first = next(own for own, inherited in pairs if inherited == best_inherited)
    assert found.regret_nats == max(first - own for own, _ in pairs) >= 0


def test_figures_found_by_hand():
    # Of 6 pairs one is discordant; the squares of the differences of ranks sum to 2: 1 - 6 * 2 / (4 * 15).
    found = fidelity(members([(2.0, 5.0), (2.25, 4.0), (3.0, 6.0), (4.0, 7.0)], [30.0, 29.5, 31.0, 20.0]))
    expected = Fidelity(4, pytest.approx(4 / 6), pytest.approx(0.8), regret_nats=0.25, regret_bleu=0.5)
    assert found == expected


def test_the_supernet_may_choose_one_that_translates_better():
    assert fidelity(members([(2.0, 5.0), (2.5, 4.0)], [30.0, 30.5])).regret_bleu == -0.5


@pytest.mark.parametrize("bleu", [[None, 30.0, 30.0], [30.0, None, 30.0]])
def test_without_the_bleu_of_both_there_is_no_regret_in_it(bleu):
    losses = [(2.0, 5.0), (2.5, 4.0), (9.0, 9.0)]
    assert fidelity(members(losses, bleu)).regret_bleu is None
    assert fidelity(members(losses, [30.0, 29.0, None])).regret_bleu == 1.0


@pytest.mark.parametrize("losses", [[(1.0, 2.0), (1.0, 3.0)], [(1.0, 2.0), (2.0, 2.0)]])
def test_where_all_losses_are_equal_there_is_no_rank(losses):
    found = fidelity(members(losses))
    assert (found.kendall_tau, found.spearman, found.regret_nats) == (0.0, 0.0, 0.0)


def test_what_cannot_be_ranked_is_listed():
    with pytest.raises(InputError, match="expected at least 2, got 1"):
        fidelity(members([(1.0, 2.0)]))
    with pytest.raises(InputError) as caught:
        fidelity(members([(math.nan, 2.0), (1.0, math.inf), (1.0, 2.0)]))
    own, inherited = caught.value.problems
    assert own == f"{ARCHITECTURES[0]}: its own loss is nan; leave it out"
    assert inherited == f"{ARCHITECTURES[1]}: its inherited loss is inf; leave it out"


def mean_experts(architecture):
    layers = [*architecture.encoder, *architecture.decoder]
    return sum(len(layer.ffn_sizes) for layer in layers) / len(layers)


def mean_flops(architecture):
    """Of an FFN's products, its experts equally likely."""
    encoder = sum(sum(layer.ffn_sizes) / len(layer.ffn_sizes) for layer in architecture.encoder)
    decoder = sum(sum(layer.ffn_sizes) / len(layer.ffn_sizes) for layer in architecture.decoder)
    return architecture.encoder_width * encoder + architecture.decoder_width * decoder


@pytest.mark.parametrize("count", [2, 3, 10])
def test_members_are_distinct_and_begin_with_the_dense_extremes(count):
    found = spread_members(DEMO, count, random.Random(1), mean_flops)
    assert found == spread_members(DEMO, count, random.Random(1), mean_flops)
    assert found != spread_members(DEMO, count, random.Random(2), mean_flops) or count == 2
    assert len(set(found)) == len(found) == count
    assert all(member in DEMO for member in found)
    dense = DEMO.dense()
    assert found[:2] == (dense.smallest(), dense.largest())


@pytest.mark.parametrize("seed", range(3))
def test_members_are_spread_over_flops_and_experts_as_random_ones_are_not(seed):
    space, count = MANY_EXPERTS, 24
    low, high = (math.log(mean_flops(member)) for member in (space.smallest(), space.largest_dense()))

    def spread(found):
        means = [mean_experts(member) for member in found]
        classes = [sum(m == 1 for m in means), sum(1 < m <= 4 for m in means), sum(m > 4 for m in means)]
        at = [(math.log(mean_flops(member)) - low) / (high - low) for member in found]
        return [*classes, sum(x < 1 / 3 for x in at), sum(x > 2 / 3 for x in at)]

    rng = random.Random(seed)
    assert min(spread(spread_members(space, count, rng, mean_flops))) >= count / 6
    assert min(spread([space.sample(rng) for _ in range(count)])) < count / 6


def test_a_space_smaller_than_asked_gives_all_it_has():
    one = replace(
        DEMO.dense(),
        encoder=replace(DEMO.dense().encoder, widths=(128,), layer_counts=(1,), ffn_sizes=(192, 384)),
        decoder=replace(
            DEMO.dense().decoder,
            widths=(128,),
            layer_counts=(1,),
            ffn_sizes=(192,),
            encoder_layers_attended=(1,),
        ),
    )
    assert set(spread_members(one, 5, random.Random(0), mean_flops)) == {one.smallest(), one.largest()}


@pytest.mark.parametrize("placement", ["every", "every_other"])
def test_a_space_without_dense_members_gives_none(placement):
    encoder, decoder = (replace(stack, layer_counts=(2, 3)) for stack in (DEMO.encoder, DEMO.decoder))
    space = replace(DEMO, placement=placement, encoder=encoder, decoder=decoder)
    found = spread_members(space, 6, random.Random(0), mean_flops)
    assert len(found) == 6
    assert all(member in space and mean_experts(member) > 1 for member in found)


def test_one_member_cannot_be_spread():
    with pytest.raises(InputError, match="at least 2, got 1"):
        spread_members(DEMO, 1, random.Random(0), toy_space.flops)
