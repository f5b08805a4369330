"""Architectures as values: what is refused, and that files come back as they were written."""

import re
from pathlib import Path

import pytest
import yaml

from automoe.design.architecture import (
    Architecture,
    AverageAttention,
    CrossAttention,
    DecoderLayer,
    EncoderLayer,
    Expert,
    FeedForward,
    SelfAttention,
    Ssru,
    dense,
)
from automoe.design.architecture_file import load_architecture, save_architecture
from automoe.design.space import load_space
from automoe.errors import InputError
from automoe.run.recipe import load_recipe
from helpers.paths import RECIPES, TEST_DATA

HAT_FILES = sorted((TEST_DATA / "hat").glob("*.yml"))

MIXED = Architecture(
    encoder_width=48,
    decoder_width=32,
    qkv_dim=32,
    encoder=(EncoderLayer(4, (64, 0, 32), top_k=2), EncoderLayer(2, (16,))),
    decoder=(DecoderLayer(2, 4, (32, 48), encoder_layers_attended=2),),
)


def test_equal_architectures_are_one_key() -> None:
    assert len({MIXED, Architecture.from_dict(MIXED.to_dict()), dense(32, 64, 4, 1, 1)}) == 2


def test_a_saved_architecture_loads_as_it_was(tmp_path: Path) -> None:
    save_architecture(MIXED, tmp_path / "a.yaml")
    assert load_architecture(tmp_path / "a.yaml") == MIXED


FAST = Architecture(
    encoder_width=48,
    decoder_width=32,
    qkv_dim=32,
    encoder=(EncoderLayer(4, (64,)),),
    decoder=(
        DecoderLayer(0, 4, (32,), mixer="ssru"),
        DecoderLayer(0, 2, (32,), mixer="average_attention"),
        DecoderLayer(2, 4, (32,)),
    ),
)


def test_a_mixer_is_written_where_it_is_not_self_attention(tmp_path: Path) -> None:
    save_architecture(FAST, tmp_path / "a.yaml")
    assert load_architecture(tmp_path / "a.yaml") == FAST
    assert [layer.get("mixer") for layer in FAST.to_dict()["decoder"]] == ["ssru", "average_attention", None]
    assert str(FAST) == "48/32 enc[4:64] dec[ssru/4x1:32 avg/2x1:32 2/4x1:32]"
    kinds = [layer.sublayers[0] for layer in FAST.layers("decoder")]
    assert kinds == [Ssru(), AverageAttention(), SelfAttention(2)]
    assert [s.per for layer in FAST.layers("decoder") for s in layer.decoder_state(32)] == [
        "beam", "source", "source", "beam", "source", "source", "position", "position", "source", "source",
    ]  # fmt: skip


def test_heads_are_those_of_self_attention_alone() -> None:
    plain = FAST.to_dict()
    plain["decoder"][0]["self_attention_heads"] = 4
    plain["decoder"][1]["mixer"] = "lstm"
    plain["decoder"][2]["self_attention_heads"] = 0
    with pytest.raises(InputError) as caught:
        Architecture.from_dict(plain)
    assert caught.value.problems == (
        "decoder[0].self_attention_heads: 4, but ssru has none: write 0",
        "decoder[1].mixer: expected 'self_attention', 'average_attention' or 'ssru', got 'lstm'",
        "decoder[2].self_attention_heads: expected at least 1, got 0",
    )


def test_one_line_shows_every_layer() -> None:
    assert str(MIXED) == "48/32 enc[4:64+0+32@2 2:16] dec[2/4x2:32+48]"


def test_every_impossible_value_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        Architecture(
            encoder_width=0,
            decoder_width=True,
            qkv_dim=32,
            encoder=(),
            decoder=(DecoderLayer(2, 4, (16,)),),
        )
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "encoder_width",
        "decoder_width",
        "encoder",
    ]


def test_every_impossible_value_of_a_file_is_listed_with_its_place() -> None:
    plain = {
        "encoder_width": 16,
        "decoder_width": 16,
        "qkv_dim": 32,
        "encoder": [{"self_attention_heads": 0, "experts": []}],
        "decoder": [
            {"self_attention_heads": 2, "cross_attention_heads": True, "experts": [16, -1, "x", True]},
            {"self_attention_heads": 2, "cross_attention_heads": 2, "experts": [16], "top_k": 2},
        ],
    }
    with pytest.raises(InputError) as caught:
        Architecture.from_dict(plain)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "encoder[0].self_attention_heads",
        "encoder[0].experts",
        "decoder[0].cross_attention_heads",
        "decoder[0].experts[1].size",
        "decoder[0].experts[2]",
        "decoder[0].experts[3]",
        "decoder[1].top_k",
    ]


def test_every_rule_across_fields_that_is_broken_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        Architecture(
            encoder_width=16,
            decoder_width=16,
            qkv_dim=32,
            encoder=(EncoderLayer(3, (16,)),),
            decoder=(DecoderLayer(2, 5, (16,), encoder_layers_attended=2),),
        )
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "encoder[0].self_attention_heads",
        "decoder[0].cross_attention_heads",
        "decoder[0].encoder_layers_attended",
    ]


def test_layers_yield_typed_sublayers_in_order() -> None:
    layers = list(MIXED.layers())
    assert [layer.name for layer in layers] == ["encoder.0", "encoder.1", "decoder.0"]
    assert [layer.width for layer in layers] == [48, 48, 32]
    assert layers[0].sublayers == (SelfAttention(4), FeedForward((Expert(64), Expert(0), Expert(32)), 2))
    assert layers[2].sublayers[1] == CrossAttention(4, encoder_layers_attended=2)
    assert list(MIXED.layers("decoder")) == layers[2:]


def test_an_expert_is_a_value_and_a_number_in_files() -> None:
    assert EncoderLayer(2, (Expert(8), Expert(0))) == EncoderLayer(2, (8, 0))
    assert MIXED.to_dict()["encoder"][0]["experts"] == [64, 0, 32]
    plain = MIXED.to_dict()
    plain["encoder"][0]["experts"][1] = {"size": 0}
    assert Architecture.from_dict(plain) == MIXED


def test_unknown_and_missing_keys_are_listed() -> None:
    plain = MIXED.to_dict()
    del plain["qkv_dim"]
    plain["depth"] = 3
    plain["encoder"][1]["head"] = plain["encoder"][1].pop("self_attention_heads")
    plain["decoder"] = "none"
    with pytest.raises(InputError) as caught:
        Architecture.from_dict(plain)
    text = "\n".join(caught.value.problems)
    for part in ("depth: unknown", "qkv_dim: missing", "[1].head: unknown", "decoder: expected a list"):
        assert part in text


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("widths", [8, 10**7], "encoder.widths[1]: expected at most 1000000, got 10000000"),
        ("ffn_sizes", [2**63], "encoder.ffn_sizes[0]: expected at most 1000000"),
        ("layer_counts", [10**9], "encoder.layer_counts[0]: expected at most 1000, got 1000000000"),
        ("max_experts", 10**9, "encoder.max_experts: expected at most 4096, got 1000000000"),
    ],
)
def test_a_space_whose_members_no_memory_holds_is_refused(
    tmp_path: Path, field: str, value: object, problem: str
) -> None:
    plain = yaml.safe_load((RECIPES / "spaces" / "copy-toy.yaml").read_text())
    plain["encoder"][field] = value
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(InputError, match=re.escape(problem)):
        load_space(tmp_path / "space.yaml")


def test_an_architecture_that_no_memory_holds_is_refused() -> None:
    plain = dense(8, 16, 2, 1, 1).to_dict()
    huge = plain | {"encoder_width": 10**7, "qkv_dim": 10**7, "decoder": plain["decoder"] * 1001}
    with pytest.raises(InputError) as caught:
        Architecture.from_dict(huge)
    places = [problem.partition(":")[0] for problem in caught.value.problems]
    assert places == ["encoder_width", "qkv_dim", "decoder"]


@pytest.mark.parametrize("content", ["a: [1", "- 1\n- 2\n", "", b"\xff\xfe\x00".decode("latin-1")])
def test_a_file_that_is_no_architecture_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"broken\.yaml"):
        load_architecture(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml"):
        load_architecture(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", HAT_FILES, ids=lambda path: path.stem)
def test_hat_files_load(path: Path) -> None:
    plain = yaml.safe_load(path.read_text())
    architecture = load_architecture(path)
    assert architecture.encoder_width == plain["encoder-embed-dim-subtransformer"]
    assert len(architecture.decoder) == plain["decoder-layer-num-subtransformer"]
    sizes = plain["decoder-ffn-embed-dim-all-subtransformer"][: len(architecture.decoder)]
    assert [list(layer.ffn_sizes) for layer in architecture.decoder] == [[size] for size in sizes]
    codes = plain["decoder-arbitrary-ende-attn-all-subtransformer"]
    meaning = {-1: 1, 1: 2, 2: 3}
    for layer, code in zip(architecture.decoder, codes, strict=False):
        assert layer.encoder_layers_attended == meaning[code]


def hat(**changes: object) -> dict[str, object]:
    plain: dict[str, object] = {
        "encoder-embed-dim-subtransformer": 512,
        "decoder-embed-dim-subtransformer": 640,
        "encoder-layer-num-subtransformer": 2,
        "decoder-layer-num-subtransformer": 1,
        "encoder-ffn-embed-dim-all-subtransformer": [1024, 2048, 3072],
        "decoder-ffn-embed-dim-all-subtransformer": [3072, 3072],
        "encoder-self-attention-heads-all-subtransformer": [4, 8, 8],
        "decoder-self-attention-heads-all-subtransformer": [8, 4],
        "decoder-ende-attention-heads-all-subtransformer": [4, 8],
    }
    return plain | {key.replace("_", "-"): value for key, value in changes.items()}


def write(path: Path, plain: object) -> Path:
    path.write_text(yaml.safe_dump(plain))
    return path


def test_automoe_files_have_experts(tmp_path: Path) -> None:
    plain = hat(
        encoder_n_experts_all_subtransformer=[2, 1, 1],
        encoder_each_expert_ffn_embed_dim_all_subtransformer=[[3072, 1024, 1024], [2048], [1024]],
        decoder_n_experts_all_subtransformer=[3, 1],
    )
    architecture = load_architecture(write(tmp_path / "a.yml", plain))
    assert [layer.ffn_sizes for layer in architecture.encoder] == [(3072, 1024), (2048,)]
    assert [layer.ffn_sizes for layer in architecture.decoder] == [(3072, 3072, 3072)]


def test_every_problem_of_a_hat_file_is_listed(tmp_path: Path) -> None:
    plain = hat(
        decoder_embed_dim_subtransformer="wide",
        encoder_self_attention_heads_all_subtransformer=[4],
        decoder_ende_attention_heads_all_subtransformer=["four"],
        encoder_n_experts_all_subtransformer=[3, 1],
        encoder_each_expert_ffn_embed_dim_all_subtransformer=[[3072], [2048]],
    )
    with pytest.raises(InputError) as caught:
        load_architecture(write(tmp_path / "a.yml", plain))
    text = str(caught.value)
    for part in (
        "a.yml",
        "decoder-embed-dim",
        "encoder-self-attention-heads",
        "decoder-ende-attention-heads",
        "3 experts, but 1 FFN sizes",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2024-01-01: x", "expected text as a key, got 2024-01-01 (date)"),
        ("encoder_width: 2024-01-01", "encoder_width: got the date 2024-01-01"),
        ("encoder: &x [*x]", "encoder[0]: contains itself"),
        ("encoder_width: 2024-13-01", "month must be in 1..12"),
        ("encoder_width: !!bool maybe", "maybe"),
        ("encoder_width: " + "[" * 3000, ""),
    ],
)
def test_what_only_yaml_can_say_is_refused_with_its_file(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "strange.yaml"
    path.write_text(line)
    for load in (load_architecture, load_space, load_recipe):
        with pytest.raises(InputError, match=re.escape(str(path))) as caught:
            load(path)
        assert problem in str(caught.value)


def test_an_unknown_key_is_named_with_the_known_ones() -> None:
    plain = dense(32, 64, 4, 1, 1).to_dict() | {"width": 3}
    plain["decoder"][0]["heads"] = 2
    plain["encoder"][0]["experts"] = [{"size": 64, "kind": "dense"}]
    with pytest.raises(InputError) as caught:
        Architecture.from_dict(plain)
    attention = "self_attention_heads, cross_attention_heads, experts, top_k, encoder_layers_attended"
    attention += ", mixer"
    assert sorted(caught.value.problems) == [
        f"decoder[0].heads: unknown key (known: {attention})",
        "encoder[0].experts[0].kind: unknown key (known: size)",
        "width: unknown key (known: encoder_width, decoder_width, qkv_dim, encoder, decoder)",
    ]
