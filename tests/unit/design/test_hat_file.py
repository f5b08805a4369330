"""Files of HAT and of AutoMoE: read right in every spelling, or refused, naming what is not understood."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from automoe.design.architecture import Architecture
from automoe.design.architecture_file import load_architecture
from automoe.errors import InputError
from helpers.paths import TEST_DATA

# AutoMoE's published architecture for WMT'14 En-De (the paper's Table 5), with made-up heads.
ENCODER = [[2048, 3072, 2048], [3072, 1024], [3072, 3072, 1024], [3072, 1024, 3072, 2048], [3072]]
ENCODER += [[3072, 1024, 3072]]
DECODER = [[3072, 1024, 2048], [3072], [3072], [3072]]
HAT = """
encoder-embed-dim-subtransformer: 640
decoder-embed-dim-subtransformer: 512
encoder-layer-num-subtransformer: 6
decoder-layer-num-subtransformer: 4
encoder-self-attention-heads-all-subtransformer: [8, 4, 8, 4, 8, 8]
decoder-self-attention-heads-all-subtransformer: [4, 8, 8, 4, 2, 2]
decoder-ende-attention-heads-all-subtransformer: [8, 8, 4, 4, 2, 2]
decoder-arbitrary-ende-attn-all-subtransformer: [-1, 1, 2, -1, 1, 1]
"""
DENSE = """
encoder-ffn-embed-dim-all-subtransformer: [3072, 1024, 3072, 2048, 1024, 3072]
decoder-ffn-embed-dim-all-subtransformer: [3072, 1024, 3072, 2048]
"""
# HAT's configs/wmt14.en-de/subtransformer/common.yml, which goes with a file of the above.
COMMON = """
train-subtransformer: True
arch: transformersuper_wmt_en_de
share-all-embeddings: True
max-tokens: 4096
data: data/binary/wmt16_en_de
optimizer: adam
adam-betas: (0.9, 0.98)
clip-norm: 0.0
weight-decay: 0.0
dropout: 0.3
attention-dropout: 0.1
criterion: label_smoothed_cross_entropy
label-smoothing: 0.1
ddp-backend: no_c10d
fp16: True
update-freq: 16
max-update: 40000
warmup-updates: 4000
lr-scheduler: cosine
warmup-init-lr: 1e-7
max-lr: 0.001
lr: 1e-7
lr-shrink: 1
keep-last-epochs: 20
save-interval: 10
validate-interval: 10
encoder-embed-dim: 640
decoder-embed-dim: 640
encoder-ffn-embed-dim: 3072
decoder-ffn-embed-dim: 3072
encoder-layers: 6
decoder-layers: 6
encoder-attention-heads: 8
decoder-attention-heads: 8
qkv-dim: 512
"""


def joined(stack: list[list[int]]) -> list[str]:
    return ["_".join(map(str, sizes)) for sizes in stack]


def read(folder: Path, text: str) -> Architecture:
    path = folder / "a.yml"
    path.write_text(text)
    return load_architecture(path)


def refusal(folder: Path, text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(folder, text)
    assert "a.yml" in caught.value.summary
    return list(caught.value.problems)


def sizes_of(architecture: Architecture) -> tuple[list[list[int]], list[list[int]]]:
    return (
        [list(layer.ffn_sizes) for layer in architecture.encoder],
        [list(layer.ffn_sizes) for layer in architecture.decoder],
    )


def top_k_of(architecture: Architecture) -> list[int]:
    return [layer.top_k for layer in (*architecture.encoder, *architecture.decoder)]


@pytest.mark.parametrize(
    "sizes_name",
    [
        "{}-ffn-embed-dim-all-subtransformer",
        "{}-expert-ffn-embed-dim-all-subtransformer",
        "{}-each-expert-ffn-embed-dim-all-subtransformer",
        "{}_experts_ffn_embed_dim_all_subtransformer",
        "{}-ffn-embed-dim-experts-all-subtransformer",
        "{}-expert-ffn-intermediate-size-all-subtransformer",
        "{}-expert-ffn-embed-dims",
    ],
)
@pytest.mark.parametrize(
    "count_name",
    [
        "",
        "{}-n-experts-all-subtransformer",
        "{}_num_experts_all_subtransformer",
        "{}-expert-num-all-subtransformer",
        "{}-number-of-experts-each-layer-all-subtransformer",
        "{}-experts-subtransformer",
        "{}-n-expert",
    ],
)
def test_every_spelling_of_experts_is_read(tmp_path: Path, sizes_name: str, count_name: str) -> None:
    for write in (joined, list):
        plain: dict[str, Any] = {}
        for stack, layers in (("encoder", ENCODER), ("decoder", DECODER)):
            plain[sizes_name.format(stack)] = write(layers)
            if count_name:
                plain[count_name.format(stack)] = [len(sizes) for sizes in layers]
        for dump in (yaml.safe_dump, lambda plain: yaml.safe_dump(plain, default_flow_style=None)):
            architecture = read(tmp_path, HAT + dump(plain))
            assert sizes_of(architecture) == (ENCODER, DECODER)
            assert set(top_k_of(architecture)) == {1}


def test_sizes_without_quotes_are_no_number(tmp_path: Path) -> None:
    """YAML 1.1 takes 3072_1024 for 30721024."""
    text = "".join(
        f"{stack}-expert-ffn-embed-dim-all-subtransformer: [{', '.join(joined(layers))}]\n"
        for stack, layers in (("encoder", ENCODER), ("decoder", DECODER))
    )
    assert yaml.safe_load(text)["encoder-expert-ffn-embed-dim-all-subtransformer"][1] == 30721024
    assert sizes_of(read(tmp_path, HAT + text)) == (ENCODER, DECODER)


def test_json_is_read_too(tmp_path: Path) -> None:
    plain = yaml.safe_load(HAT + DENSE) | {"encoder_ffn_embed_dim_all_subtransformer": joined(ENCODER)}
    del plain["encoder-ffn-embed-dim-all-subtransformer"]
    assert sizes_of(read(tmp_path, json.dumps(plain)))[0] == ENCODER


def test_all_other_values_are_those_of_the_file(tmp_path: Path) -> None:
    architecture = read(tmp_path, HAT + DENSE)
    assert (architecture.encoder_width, architecture.decoder_width, architecture.qkv_dim) == (640, 512, 512)
    assert [layer.self_attention_heads for layer in architecture.encoder] == [8, 4, 8, 4, 8, 8]
    assert [layer.self_attention_heads for layer in architecture.decoder] == [4, 8, 8, 4]
    assert [layer.cross_attention_heads for layer in architecture.decoder] == [8, 8, 4, 4]
    assert [layer.encoder_layers_attended for layer in architecture.decoder] == [1, 2, 3, 1]
    assert architecture.is_dense


@pytest.mark.parametrize(
    "name",
    [
        "{}n-experts-to-route-all-subtransformer",
        "{}num_experts_to_route_subtransformer",
        "{}experts-to-route",
        "{}expert-top-k-all-subtransformer",
        "{}experts-topk",
        "{}n-active-experts-all-subtransformer",
        "{}num-experts-per-token",
    ],
)
def test_every_spelling_of_experts_to_route_to_is_read(tmp_path: Path, name: str) -> None:
    experts = yaml.safe_dump(
        {
            "encoder-expert-ffn-embed-dim-all-subtransformer": joined(ENCODER),
            "decoder-expert-ffn-embed-dim-all-subtransformer": joined(DECODER),
        }
    )
    both = read(tmp_path, HAT + experts + f"{name.format('')}: 2\n")
    # A layer of one expert routes nothing.
    assert top_k_of(both) == [2, 2, 2, 2, 1, 2, 2, 1, 1, 1]
    assert sizes_of(both) == (ENCODER, DECODER)
    own = f"{name.format('encoder-')}: [1, 2, 3, 4, 1, 1]\n{name.format('decoder-')}: 3\n"
    assert top_k_of(read(tmp_path, HAT + experts + own)) == [1, 2, 3, 4, 1, 1, 3, 1, 1, 1]
    problems = refusal(tmp_path, HAT + experts + f"{name.format('encoder-')}: 3\n")
    assert problems == ["encoder[1].top_k: 3, but there are 2 experts"]


def test_a_number_of_experts_of_one_size(tmp_path: Path) -> None:
    text = HAT + DENSE + "n-experts-all-subtransformer: 2\n"
    encoder, decoder = sizes_of(read(tmp_path, text))
    assert encoder == [[size] * 2 for size in (3072, 1024, 3072, 2048, 1024, 3072)]
    assert decoder == [[size] * 2 for size in (3072, 1024, 3072, 2048)]
    text = HAT + DENSE + "encoder-n-experts-all-subtransformer: [1, 3, 1, 2, 1, 6, 9]\n"
    encoder, decoder = sizes_of(read(tmp_path, text))
    assert list(map(len, encoder)) == [1, 3, 1, 2, 1, 6]
    assert list(map(len, decoder)) == [1] * 4


def test_lists_may_be_longer_than_what_is_counted(tmp_path: Path) -> None:
    padded = [(sizes + [512] * 6)[:6] for sizes in ENCODER] + [[512] * 6]
    counts = [len(sizes) for sizes in ENCODER]
    text = yaml.safe_dump(
        {
            "encoder-expert-ffn-embed-dim-all-subtransformer": joined(padded),
            "encoder-n-experts-all-subtransformer": counts,
            "decoder-ffn-embed-dim-all-subtransformer": joined(DECODER),
        }
    )
    assert sizes_of(read(tmp_path, HAT + text)) == (ENCODER, DECODER)


def test_the_other_half_of_a_configuration_is_no_architecture(tmp_path: Path) -> None:
    for path in sorted((TEST_DATA / "hat").glob("*.yml")):
        assert read(tmp_path, path.read_text() + COMMON) == load_architecture(path)
    assert read(tmp_path, HAT + DENSE + "qkv-dim: 256").qkv_dim == 256


@pytest.mark.parametrize(
    "key",
    [
        "encoder-moe-freq-all-subtransformer",
        "decoder-expert-dropout-all-subtransformer",
        "encoder-n-expert-sizes",
        "encoder-ffn-n-experts-all-subtransformer",
        "max-experts",
        "encoder-decoder-n-experts-all-subtransformer",
        "encoder-normalize-before",
        "encoder-ende-attention-heads-all-subtransformer",
        "encoder-embed-dim-subtransformers",
        "frobnicate",
        "2024-01-01",
    ],
)
def test_a_key_that_is_not_understood_is_named_with_the_known_ones(tmp_path: Path, key: str) -> None:
    problems = refusal(tmp_path, HAT + DENSE + f"{key}: 1\n")
    assert problems[0] == f"{key}: unknown key"
    for known in ("decoder-ende-attention-heads-all-subtransformer", "qkv-dim", "encoder-n-experts"):
        assert known in problems[1]
    assert "warmup-updates" in problems[2]
    assert len(problems) == 3


def test_a_key_that_is_misspelt_is_not_taken_for_our_own_format(tmp_path: Path) -> None:
    text = (HAT + DENSE).replace("encoder-embed-dim-sub", "encoder-embd-dim-sub")
    problems = refusal(tmp_path, text)
    assert "encoder-embd-dim-subtransformer: unknown key" in problems
    assert "encoder-embed-dim-subtransformer: missing" in problems


@pytest.mark.parametrize(
    "left_out", [line.split(":")[0] for line in (HAT + DENSE).splitlines() if ":" in line]
)
def test_a_missing_key_is_named_or_has_hats_default(tmp_path: Path, left_out: str) -> None:
    text = "\n".join(line for line in (HAT + DENSE).splitlines() if not line.startswith(left_out))
    if "arbitrary" in left_out:
        assert {layer.encoder_layers_attended for layer in read(tmp_path, text).decoder} == {1}
    else:
        assert f"{left_out}: missing" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "encoder-n-experts: [1, 1, 2, 1, 1, 1]\nencoder-num-experts-all-subtransformer: 2",
            "says the same as",
        ),
        ("n-experts: 2\nencoder-n-experts: 2", "encoder-n-experts: says the same as n-experts; delete one"),
        (
            "encoder-n-experts: [1, 2]",
            "encoder-n-experts: expected a value for each of 6 layers, got ['1', '2']",
        ),
        ("encoder-n-experts: two", "encoder-n-experts: expected a number below 1,000,000, got 'two'"),
        ("encoder-n-experts: true", "got 'true'"),
        ("encoder-n-experts: -1", "got '-1'"),
        ("encoder-n-experts: 1.5", "got '1.5'"),
        ("encoder-n-experts: 1_0", "got '1_0'"),
        ("encoder-n-experts:", "got ''"),
        ("encoder-n-experts: {a: 1}", "got {'a': '1'}"),
        ("encoder-n-experts: 0", "encoder[0].experts: expected at least 1 entry"),
        ("encoder-n-experts: " + "9" * 50, "expected a number below 1,000,000"),
        ("encoder-expert-ffn-embed-dim: [3072_, 1, 1, 1, 1, 1]", "such as 3072 or 3072_1024, got '3072_'"),
        ("encoder-expert-ffn-embed-dim: '3072,1024'", "such as 3072 or 3072_1024, got '3072,1024'"),
        ("encoder-expert-ffn-embed-dim: 3072-1024", "got '3072-1024'"),
        ("encoder-expert-ffn-embed-dim: [[[3072]], 1, 1, 1, 1, 1]", "got ['3072']"),
        (
            "encoder-expert-ffn-embed-dim: 3072_1024\nencoder-n-experts: 3",
            "encoder layer 5: 3 experts, but 2 FFN sizes in encoder-expert-ffn-embed-dim",
        ),
        (
            "encoder-expert-ffn-embed-dim: [3072_1024, 2048, 1, 1, 1, 1]\nencoder-n-experts: 2",
            "encoder layer 1: 2 experts, but 1 FFN sizes",
        ),
        (
            "encoder-expert-ffn-embed-dim: [3072_1024, 2048, 3072, 2048, 1024, 3072]",
            "encoder layer 1: one expert, of 2048 in encoder-expert-ffn-embed-dim and of 1024 in "
            "encoder-ffn-embed-dim-all-subtransformer; delete the wrong key",
        ),
        ("qkv-dim: wide", "qkv-dim: expected a number below 1,000,000, got 'wide'"),
        ("qkv-dim: 512\nqkv-dim: 256", "the key qkv-dim is there twice"),
    ],
)
def test_what_contradicts_itself_or_is_no_number_is_refused(tmp_path: Path, lines: str, problem: str) -> None:
    problems = refusal(tmp_path, HAT + DENSE + lines + "\n")
    assert problem in "\n".join(problems)
    assert len(set(problems)) == len(problems)


@pytest.mark.parametrize("code", ["0", "-2", "all", "[-1]"])
def test_a_code_of_attended_layers_that_hat_has_not_is_refused(tmp_path: Path, code: str) -> None:
    problems = refusal(tmp_path, (HAT + DENSE).replace("[-1, 1, 2,", f"[-1, {code}, 2,"))
    assert "decoder-arbitrary-ende-attn-all-subtransformer" in problems[0]


def test_any_one_change_of_a_key_is_noticed(tmp_path: Path) -> None:
    """Random letters changed: never the same architecture as though the key had not been there."""
    rng = random.Random(0)
    lines = (HAT + DENSE).split("\n")
    keys = [index for index, line in enumerate(lines) if ":" in line and "arbitrary" not in line]
    for _ in range(200):
        changed = list(lines)
        index = rng.choice(keys)
        at = rng.randrange(changed[index].index(":"))
        letter = rng.choice([x for x in "abcxyz19" if x != changed[index][at]])
        changed[index] = changed[index][:at] + letter + changed[index][at + 1 :]
        problems = refusal(tmp_path, "\n".join(changed))
        assert f"{changed[index].split(':')[0]}: unknown key" in problems
