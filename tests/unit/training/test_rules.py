"""Which members the rules draw: counted over many steps, priced by the weights of real models."""

import math
import random
from dataclasses import replace

import pytest

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.design.space import load_space
from automoe.errors import InputError
from automoe.model.transformer import Transformer
from automoe.training.rules import (
    RULES,
    Members,
    active_parameters,
    balanced,
    only,
    random_members,
    sandwich,
)
from helpers.paths import RECIPES

DEMO = load_space(RECIPES / "spaces" / "demo.yaml")
# With so many layers a random member is hardly ever dense.
SPACE = replace(
    DEMO,
    encoder=replace(DEMO.encoder, layer_counts=(3,)),
    decoder=replace(DEMO.decoder, layer_counts=(1, 2)),
)
NO_DENSE_MEMBERS = replace(SPACE, placement="every")


def is_dense(architecture):
    return all(len(layer.experts) == 1 for layer in (*architecture.encoder, *architecture.decoder))


def drawn(rule, steps):
    return [rule(step, random.Random(step)) for step in range(1, steps + 1)]


@pytest.mark.parametrize("space", [SPACE, NO_DENSE_MEMBERS], ids=["dense-members", "no-dense-members"])
@pytest.mark.parametrize("name", RULES)
def test_a_rule_draws_so_many_members_of_the_space_and_by_its_generator_alone(name, space):
    row = RULES[name]
    steps = drawn(row.make(space), 20)
    assert all(len(members.architectures) == row.members for members in steps)
    assert all(a in space for members in steps for a in members.architectures)
    assert steps == drawn(row.make(space), 20)
    assert len(set(steps)) > 1


def test_single_models_and_random_members():
    assert only(SPACE.largest())(7, random.Random(1)) == Members((SPACE.largest(),))
    for step, members in enumerate(drawn(random_members(SPACE), 5), start=1):
        assert members == Members((SPACE.sample(random.Random(step)),))


def test_a_sandwich_is_largest_smallest_and_a_dense_one_around_a_random_one():
    steps = drawn(sandwich(SPACE), 200)
    for members in steps:
        largest, smallest, _, last = members.architectures
        assert (largest, smallest) == (SPACE.largest(), SPACE.smallest())
        assert members.teacher == 0
        assert is_dense(last)
    assert sum(is_dense(members.architectures[2]) for members in steps) < 20
    assert len({members.architectures[3] for members in steps}) > 100


def shares_of_thirds(part, members):
    """Of the range of log-costs of a part of the space, from its smallest to its largest member."""
    low, high = (math.log(active_parameters(a)) for a in (part.smallest(), part.largest()))
    costs = [math.log(active_parameters(a)) for a in members]
    thirds = [min(2, int(3 * (cost - low) / (high - low))) for cost in costs]
    return [thirds.count(third) / len(costs) for third in range(3)]


def test_balanced_members_are_dense_half_of_the_time_and_spread_more_evenly_over_cost():
    members = [step.architectures[0] for step in drawn(balanced(SPACE), 2000)]
    assert sum(map(is_dense, members)) == pytest.approx(1000, abs=100)
    rng = random.Random(3)
    for kind, part in ((True, SPACE.dense()), (False, SPACE)):
        found = shares_of_thirds(part, [a for a in members if is_dense(a) == kind])
        plain = shares_of_thirds(part, [part.sample(rng) for _ in range(1000)])
        assert min(found) > 0.15, found
        assert min(found) > 1.5 * min(plain), (found, plain)


@pytest.mark.parametrize(
    "architecture",
    [
        dense(32, 48, 4, 2, 3),
        Architecture(
            16, 24, 8, (EncoderLayer(2, (10,)), EncoderLayer(1, (20,))), (DecoderLayer(2, 1, (30,)),)
        ),
        Architecture(
            16,
            24,
            8,
            (EncoderLayer(2, (10,)),),
            tuple(DecoderLayer(0, 1, (30,), mixer=mixer) for mixer in ("ssru", "average_attention")),
        ),
    ],
)
def test_active_parameters_of_a_dense_member_are_the_matrices_of_its_model(architecture):
    model = Transformer(architecture, vocabulary_size=8)
    matrices = [p.numel() for name, p in model.named_parameters() if p.dim() == 2 and name != "embedding"]
    assert active_parameters(architecture) == sum(matrices)


def test_active_parameters_of_mixtures_and_of_more_encoder_layers_attended():
    def with_last(experts, top_k=1, attended=1):
        encoder = (EncoderLayer(1, (10,)), EncoderLayer(1, (10,)))
        return Architecture(16, 24, 8, encoder, (DecoderLayer(1, 1, experts, top_k, attended),))

    base = active_parameters(with_last((30,)))
    # One of the experts of 10 and 30, and two of three: on average 20, and 2 * 20, columns of width 24.
    assert active_parameters(with_last((10, 30))) - base == 2 * 24 * (20 - 30)
    assert active_parameters(with_last((10, 20, 30), top_k=2)) - base == 2 * 24 * (40 - 30)
    # Keys and values of another encoder layer.
    assert active_parameters(with_last((30,), attended=2)) - base == 2 * 16 * 8


def test_impossible_members_list_what_is_wrong():
    with pytest.raises(InputError) as caught:
        Members((), teacher=-1, distillation=1.5)
    for problem in ("architectures: expected at least 1 entry", "teacher: expected at", "distillation: exp"):
        assert problem in str(caught.value)
    with pytest.raises(InputError, match="teacher: expected one of the 1 members' indices, got 1"):
        Members((SPACE.largest(),), teacher=1)
