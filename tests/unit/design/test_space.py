"""The search space against brute force: every member of toy spaces listed, and none missed."""

import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer, dense
from automoe.design.space import DecoderSpace, EncoderSpace, SearchSpace, load_space, misfits, space_misfits
from automoe.errors import InputError
from automoe.model.sharing import Supernet
from helpers.paths import RECIPES

RECIPES = sorted((RECIPES / "spaces").glob("*.yaml"))

TOY = SearchSpace(
    qkv_dim=8,
    encoder=EncoderSpace(
        widths=(8,),
        layer_counts=(1, 2),
        self_attention_heads=(2,),
        ffn_sizes=(0, 4),
        max_experts=2,
        top_k=(1, 2),
    ),
    decoder=DecoderSpace(
        widths=(8, 16),
        layer_counts=(1, 2),
        self_attention_heads=(1,),
        cross_attention_heads=(1, 4),
        encoder_layers_attended=(1, 2),
        ffn_sizes=(8,),
        max_experts=2,
        top_k=(1,),
    ),
    experts="fractional",
)
TOYS = {
    f"{experts}-{placement}": replace(TOY, experts=experts, placement=placement)
    for experts in ("standard", "fractional")
    for placement in ("free", "every", "every_other")
} | {
    "dense": TOY.dense(),
    "always-two": replace(TOY, encoder=replace(TOY.encoder, top_k=(2,))),
    "mixers": replace(
        TOY.dense(),
        decoder=replace(
            TOY.dense().decoder,
            self_attention_heads=(1, 4),
            cross_attention_heads=(1,),
            mixers=("self_attention", "ssru", "average_attention"),
        ),
    ),
    "ssru": replace(TOY.dense(), decoder=replace(TOY.dense().decoder, mixers=("ssru",))),
}


def expert_lists(space: SearchSpace, stack: EncoderSpace, index: int) -> list[tuple[tuple[int, ...], int]]:
    """Every (experts, top_k) of one layer, by the definition in words."""
    found = []
    for count in range(1, stack.max_experts + 1):
        if space.placement == "every" and count != stack.max_experts:
            continue
        if space.placement == "every_other" and count != (stack.max_experts if index in (1, 3, 5) else 1):
            continue
        for sizes in product(stack.ffn_sizes, repeat=count):
            if space.experts == "standard" and len(set(sizes)) > 1:
                continue
            found += [(sizes, min(k, count)) for k in stack.top_k]
    return found


def brute_force(space: SearchSpace) -> set[Architecture]:
    members = set()
    enc, dec = space.encoder, space.decoder
    for enc_width, dec_width, enc_depth, dec_depth in product(
        enc.widths, dec.widths, enc.layer_counts, dec.layer_counts
    ):
        encoder_layers = [
            [
                EncoderLayer(heads, sizes, k)
                for heads in enc.self_attention_heads
                for sizes, k in expert_lists(space, enc, i)
            ]
            for i in range(enc_depth)
        ]
        decoder_layers = [
            [
                DecoderLayer(heads, cross, sizes, k, attended, mixer)
                for mixer in dec.mixers
                for heads in (dec.self_attention_heads if mixer == "self_attention" else (0,))
                for cross in dec.cross_attention_heads
                for attended in dec.encoder_layers_attended
                if attended <= enc_depth
                for sizes, k in expert_lists(space, dec, i)
            ]
            for i in range(dec_depth)
        ]
        for encoder in product(*encoder_layers):
            for decoder in product(*decoder_layers):
                members.add(Architecture(enc_width, dec_width, space.qkv_dim, encoder, decoder))
    return members


MEMBERS = {name: brute_force(space) for name, space in TOYS.items()}
UNION = sorted(set().union(*MEMBERS.values()), key=str)


@pytest.mark.parametrize("name", TOYS)
def test_size_is_the_number_of_members(name: str) -> None:
    assert TOYS[name].size() == len(MEMBERS[name])


@pytest.mark.parametrize("name", TOYS)
def test_membership_is_exact(name: str) -> None:
    space = TOYS[name]
    assert {a for a in UNION if a in space} == MEMBERS[name]


def test_what_differs_in_one_gene_is_no_member() -> None:
    member = TOY.largest()
    first = member.encoder[0]
    strangers = [
        replace(member, qkv_dim=16),
        replace(member, encoder_width=24),
        replace(member, encoder=member.encoder * 2),
        replace(member, encoder=(replace(first, self_attention_heads=4), *member.encoder[1:])),
        replace(member, encoder=(replace(first, experts=(4, 5)), *member.encoder[1:])),
        replace(member, encoder=(replace(first, experts=(4, 4, 4)), *member.encoder[1:])),
    ]
    assert member in TOY
    assert not any(stranger in TOY for stranger in strangers)
    assert "an architecture" not in TOY


@pytest.mark.parametrize("name", ["standard-free", "fractional-every_other", "dense", "mixers", "ssru"])
def test_sampling_reaches_every_member_and_nothing_else(name: str) -> None:
    rng = random.Random(1)
    small = replace(TOYS[name], decoder=replace(TOYS[name].decoder, layer_counts=(1,), widths=(8,)))
    members = brute_force(small)
    assert {small.sample(rng) for _ in range(60 * len(members))} == members


@pytest.mark.parametrize("name", TOYS)
@given(seed=st.integers(0, 2**32), probability=st.floats(0, 1))
@settings(max_examples=40)
def test_mutants_and_children_are_members(name: str, seed: int, probability: float) -> None:
    space, rng = TOYS[name], random.Random(seed)
    a, b = space.sample(rng), space.sample(rng)
    assert a in MEMBERS[name]
    assert space.mutate(a, probability, rng) in MEMBERS[name]
    assert space.cross(a, b, rng) in MEMBERS[name]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100)
def test_parents_from_elsewhere_still_give_members(seed: int) -> None:
    rng = random.Random(seed)
    a, b = rng.choice(UNION), rng.choice(UNION)
    space = TOYS["fractional-every"]
    assert space.mutate(a, 0.3, rng) in MEMBERS["fractional-every"]
    assert space.cross(a, b, rng) in MEMBERS["fractional-every"]


def test_mutating_with_probability_zero_changes_nothing(rng: random.Random) -> None:
    assert all(TOY.mutate(a, 0, rng) == a for a in (TOY.sample(rng) for _ in range(50)))


def test_mutating_always_forgets_the_parent(rng: random.Random) -> None:
    parent = TOY.smallest()
    small = replace(TOY, decoder=replace(TOY.decoder, layer_counts=(1,), widths=(8,)))
    members = brute_force(small)
    assert {small.mutate(parent, 1, rng) for _ in range(60 * len(members))} == members


def test_mutation_redraws_genes_at_the_given_rate(rng: random.Random) -> None:
    # A redrawn width stays what it was half of the time.
    parent = TOY.smallest()
    changed = sum(TOY.mutate(parent, 0.3, rng).decoder_width != parent.decoder_width for _ in range(4000))
    assert 0.12 < changed / 4000 < 0.18


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_children_take_each_gene_from_a_parent(seed: int) -> None:
    rng = random.Random(seed)
    space = load_space(next(path for path in RECIPES if path.stem == "small-cpu"))
    a, b = space.sample(rng), space.sample(rng)
    child = space.cross(a, b, rng)
    assert child.encoder_width in (a.encoder_width, b.encoder_width)
    assert len(child.decoder) in (len(a.decoder), len(b.decoder))
    for index, layer in enumerate(child.decoder):
        theirs = [x.decoder[index] for x in (a, b) if index < len(x.decoder)]
        assert layer.cross_attention_heads in [x.cross_attention_heads for x in theirs]
        assert len(layer.experts) in [len(x.experts) for x in theirs]
        for e, size in enumerate(layer.ffn_sizes):
            assert size in [x.ffn_sizes[e] for x in theirs if e < len(x.experts)]


def test_a_child_inherits_from_both(rng: random.Random) -> None:
    small, large = TOY.smallest(), TOY.largest()
    children = {TOY.cross(small, large, rng) for _ in range(200)}
    assert {child.decoder_width for child in children} == {8, 16}
    assert children - {small, large}


def contains(large: Architecture, small: Architecture) -> bool:
    """Whether every parameter of `small` is a leading block of one of `large`: shapes only."""
    pairs = [
        *zip(large.encoder, small.encoder, strict=False),
        *zip(large.decoder, small.decoder, strict=False),
    ]
    return (
        large.encoder_width >= small.encoder_width
        and large.decoder_width >= small.decoder_width
        and large.qkv_dim == small.qkv_dim
        and len(large.encoder) >= len(small.encoder)
        and len(large.decoder) >= len(small.decoder)
        and all(len(big.experts) >= len(x.experts) for big, x in pairs)
        and all(f >= g for big, x in pairs for f, g in zip(big.ffn_sizes, x.ffn_sizes, strict=False))
    )


@pytest.mark.parametrize("name", TOYS)
def test_the_largest_contains_every_member_and_every_member_the_smallest(name: str) -> None:
    space = TOYS[name]
    assert space.largest() in MEMBERS[name]
    assert space.smallest() in MEMBERS[name]
    assert all(contains(space.largest(), a) and contains(a, space.smallest()) for a in MEMBERS[name])


def test_the_dense_space_is_the_members_without_mixtures() -> None:
    def is_dense(a: Architecture) -> bool:
        return all(len(layer.experts) == 1 for layer in (*a.encoder, *a.decoder))

    assert MEMBERS["dense"] == {a for a in MEMBERS["fractional-free"] if is_dense(a)}
    assert TOY.largest_dense() == replace(
        TOY.largest(),
        encoder=(EncoderLayer(2, (4,)),) * 2,
        decoder=(DecoderLayer(1, 4, (8,), encoder_layers_attended=2),) * 2,
    )


@pytest.mark.parametrize("most", [(3, 2), (2, 4)])
def test_uniform_widens_every_other_layer_of_a_dense_architecture(most: tuple[int, int]) -> None:
    """Whatever its shape; by as many experts as any layer of the space may have, all as its own one."""
    space = replace(
        TOY,
        encoder=replace(TOY.encoder, max_experts=most[0]),
        decoder=replace(TOY.decoder, max_experts=most[1]),
    )
    shape = dense(16, 32, 2, 4, 3)
    sizes = replace(shape.encoder[1], experts=(5,))
    shape = replace(shape, encoder=(shape.encoder[0], sizes, *shape.encoder[2:]))
    uniform = space.uniform(shape)
    many = max(most)
    assert [layer.ffn_sizes for layer in uniform.encoder] == [(32,), (5,) * many, (32,), (32,) * many]
    assert [layer.ffn_sizes for layer in uniform.decoder] == [(32,), (32,) * many, (32,)]
    assert {layer.top_k for layer in (*uniform.encoder, *uniform.decoder)} == {1}
    narrowed = replace(
        uniform,
        encoder=tuple(replace(layer, experts=layer.experts[:1]) for layer in uniform.encoder),
        decoder=tuple(replace(layer, experts=layer.experts[:1]) for layer in uniform.decoder),
    )
    assert narrowed == shape
    assert TOY.dense().uniform(shape) == shape


WIDE = replace(
    TOY,
    encoder=replace(TOY.encoder, widths=(4, 12), layer_counts=(1, 2, 3), ffn_sizes=(2, 6), max_experts=3),
    decoder=replace(TOY.decoder, widths=(8, 20), ffn_sizes=(0, 4, 8, 12), max_experts=3, top_k=(1, 3)),
)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150)
def test_what_has_no_misfits_has_its_weights_in_the_larger_and_nothing_else(seed: int) -> None:
    """Members of two spaces in each other's supernets."""
    rng = random.Random(seed)
    small, large = rng.choice((TOY, WIDE)).sample(rng), rng.choice((TOY, WIDE)).sample(rng)
    if rng.random() < 0.5:  # a supernet's own members mostly fit
        large = rng.choice((TOY, WIDE)).largest()
    try:
        Supernet(large, vocabulary_size=5).extract(small)
    except ValueError:
        assert misfits(small, large)
    else:
        assert misfits(small, large) == []


def test_a_space_of_other_mixers_is_no_part() -> None:
    spaces = {name: TOYS[name] for name in ("dense", "mixers", "ssru")}
    fits = {(a, b) for a in spaces for b in spaces if not space_misfits(spaces[a], spaces[b])}
    assert fits == {
        ("dense", "dense"),
        ("mixers", "mixers"),
        ("ssru", "ssru"),
        ("ssru", "mixers"),
        ("dense", "mixers"),
    }
    known = "but there are only self_attention"
    assert space_misfits(spaces["mixers"], spaces["dense"]) == [
        f"decoder.mixers: ssru, {known}",
        f"decoder.mixers: average_attention, {known}",
    ]


def test_the_extremes_in_mixers() -> None:
    space = TOYS["mixers"]
    assert {layer.mixer for layer in space.largest().decoder} == {"self_attention"}
    assert {layer.mixer for layer in space.smallest().decoder} == {"ssru"}
    assert SearchSpace.from_dict(space.to_dict()) == space
    assert "mixers" not in TOY.to_dict()["decoder"]


def test_misfits_say_where_and_by_how_much() -> None:
    large = TOY.largest()
    first = large.encoder[0]
    assert misfits(large, large) == []
    assert misfits(TOY.smallest(), large) == []
    small = replace(
        large,
        encoder_width=9,
        decoder_width=17,
        encoder=(replace(first, experts=(5, 4, 99)), *large.encoder),
        decoder=(replace(large.decoder[0], experts=(8, 8)), replace(large.decoder[1], experts=(8, 9))),
    )
    assert misfits(small, large) == [
        "encoder_width: 9, but there are at most 8",
        "decoder_width: 17, but there are at most 16",
        "encoder layers: 3, but there are at most 2",
        "encoder[0] experts: 3, but there are at most 2",
        "encoder[0].experts[0] FFN size: 5, but there are at most 4",
        "decoder[1].experts[1] FFN size: 9, but there are at most 8",
    ]


@pytest.mark.parametrize("qkv_dim", [4, 16])
def test_another_qkv_dim_is_a_misfit_even_if_it_is_smaller(qkv_dim: int) -> None:
    """Its heads would be cut in other places than those of the weights."""
    other = replace(TOY.largest(), qkv_dim=qkv_dim)
    assert misfits(other, TOY.largest()) == [f"qkv_dim: {qkv_dim}, but it is 8 there"]


def test_shapes_of_the_papers_space() -> None:
    paper = load_space(next(path for path in RECIPES if path.stem == "paper-6-fractional"))
    largest = paper.largest()
    assert (largest.encoder_width, largest.decoder_width, largest.qkv_dim) == (640, 640, 512)
    assert [layer.ffn_sizes for layer in (*largest.encoder, *largest.decoder)] == [(3072,) * 6] * 12
    # HAT: per encoder layer 2 heads x 3 FFN sizes, per decoder layer 2 x 2 heads x 3 attended x 3 sizes.
    hat = load_space(next(path for path in RECIPES if path.stem == "hat"))
    assert hat.size() == 2 * 2 * 6**6 * sum(36**depth for depth in range(1, 7))
    assert paper.dense().size() == hat.size()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_spaces_load_and_explain_every_line(path: Path, rng: random.Random) -> None:
    space = load_space(path)
    assert space.sample(rng) in space
    assert space.size() > 1000
    for line in path.read_text().splitlines():
        assert not line.strip() or "#" in line or line in ("encoder:", "decoder:")


def problems_of(tmp_path: Path, plain: object) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(InputError) as caught:
        load_space(path)
    assert "space.yaml" in caught.value.summary
    return "\n".join(caught.value.problems)


def plain_toy() -> dict[str, object]:
    layers = {"widths": [8], "layer_counts": [2], "self_attention_heads": [2], "ffn_sizes": [4]}
    return {"qkv_dim": 8, "encoder": layers, "decoder": layers | {"cross_attention_heads": [2]}}


def test_defaults_are_a_dense_space(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(plain_toy()))
    space = load_space(path)
    assert space.size() == 1
    assert space.smallest() == replace(dense(8, 4, 2, 2, 2), qkv_dim=8)


def test_every_wrong_field_of_a_file_is_listed_at_once(tmp_path: Path) -> None:
    plain = {
        "qkv_dim": 8,
        "depth": 6,
        "experts": "some",
        "placement": ["free"],
        "encoder": {
            "widths": [],
            "layer_counts": [1, 2],
            "self_attention_heads": [3, 2],
            "ffn_sizes": [4, -1, True],
            "max_experts": 0,
            "heads": [8],
        },
        "decoder": {
            "widths": 8,
            "layer_counts": [1, 1],
            "self_attention_heads": ["two"],
            "ffn_sizes": [4],
        },
    }
    text = problems_of(tmp_path, plain)
    for part in (
        "depth: unknown key",
        "experts: expected 'standard' or 'fractional', got 'some'",
        "placement: expected 'free', 'every' or 'every_other', got ['free']",
        "encoder.widths: expected at least 1 entry",
        "encoder.ffn_sizes[1]: expected at least 0, got -1",
        "encoder.ffn_sizes[2]: expected a whole number, got True",
        "encoder.max_experts: expected at least 1, got 0",
        "encoder.heads: unknown key",
        "decoder.widths: expected a list, got 8",
        "decoder.layer_counts: a choice occurs twice",
        "decoder.self_attention_heads[0]: expected a whole number, got 'two'",
        "decoder.cross_attention_heads: missing",
    ):
        assert part in text
    assert len(text.splitlines()) == 12


def test_every_broken_rule_of_a_file_is_listed_at_once(tmp_path: Path) -> None:
    plain = {
        "qkv_dim": 8,
        "encoder": {
            "widths": [8],
            "layer_counts": [1, 2],
            "self_attention_heads": [3, 2],
            "ffn_sizes": [4],
        },
        "decoder": {
            "widths": [8],
            "layer_counts": [1],
            "self_attention_heads": [2],
            "cross_attention_heads": [5, 7],
            "ffn_sizes": [4],
            "encoder_layers_attended": [1, 3],
        },
    }
    assert problems_of(tmp_path, plain).splitlines() == [
        "encoder.self_attention_heads: 3 does not divide qkv_dim 8",
        "decoder.cross_attention_heads: 5 does not divide qkv_dim 8",
        "decoder.cross_attention_heads: 7 does not divide qkv_dim 8",
        "decoder.encoder_layers_attended: 3, but the encoder has at most 2 layers",
    ]
    # The rules of the stacks come before those across them.
    plain["encoder"] |= {"top_k": [1, 2, 3], "max_experts": 2}
    plain["decoder"] |= {"top_k": [4], "max_experts": 2}
    assert problems_of(tmp_path, plain).splitlines() == [
        "encoder.top_k: 3, but a layer has at most 2 experts",
        "decoder.top_k: 4, but a layer has at most 2 experts",
    ]


def test_a_stack_must_be_keys_and_values(tmp_path: Path) -> None:
    text = problems_of(tmp_path, {"qkv_dim": 8, "encoder": [1, 2]})
    assert "encoder: expected keys and values" in text
    assert "decoder: missing" in text


def test_a_shallow_encoder_needs_a_choice_it_can_serve(tmp_path: Path) -> None:
    plain = plain_toy()
    plain["decoder"] |= {"encoder_layers_attended": [2]}
    plain["encoder"] |= {"layer_counts": [1, 2]}
    assert "none of [2] is possible with an encoder of 1 layers" in problems_of(tmp_path, plain)
