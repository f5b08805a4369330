"""Architectures as HAT (Wang et al., ACL 2020) and AutoMoE (Jawahar et al., Findings of ACL 2023) write them.

One key a quantity, one entry a layer: `encoder-ffn-embed-dim-all-subtransformer: [3072, 1024]`. Dashes may
be underscores, and one value stands for all layers. A list may be longer than there are layers; the first
entries count. `decoder-arbitrary-ende-attn` -1 attends to the last encoder layer, 1 to the last two.

AutoMoE adds how many experts a layer has, to how many of them a token goes, and the FFN size of each:
`3072_1024` or `[3072, 1024]` is a layer with experts of 3072 and 1024. Its names for these are not
documented, so a key about experts is read by its words (`_meaning`). What is not understood is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from automoe.design.architecture import STACKS, Architecture, Stack
from automoe.errors import InputError

HAT_QKV_DIM = 512
"""Of every attention, where a file has no `qkv-dim`: HAT's code and models fix it at this."""

Quantity: TypeAlias = Literal[
    "width", "depth", "self_heads", "cross_heads", "attended", "ffn_sizes", "expert_sizes", "experts", "top_k"
]
_HAT_NAMES: dict[Stack, dict[Quantity, str]] = {
    "encoder": {
        "width": "encoder-embed-dim-subtransformer",
        "depth": "encoder-layer-num-subtransformer",
        "self_heads": "encoder-self-attention-heads-all-subtransformer",
        "ffn_sizes": "encoder-ffn-embed-dim-all-subtransformer",
    },
    "decoder": {
        "width": "decoder-embed-dim-subtransformer",
        "depth": "decoder-layer-num-subtransformer",
        "self_heads": "decoder-self-attention-heads-all-subtransformer",
        "cross_heads": "decoder-ende-attention-heads-all-subtransformer",
        "attended": "decoder-arbitrary-ende-attn-all-subtransformer",
        "ffn_sizes": "decoder-ffn-embed-dim-all-subtransformer",
    },
}
_HAT_MEANINGS = {
    name: (stack, quantity) for stack, names in _HAT_NAMES.items() for quantity, name in names.items()
}
_QKV_NAME = "qkv-dim"

# The words of AutoMoE's keys beside `expert` and `_FILLERS`, in the singular: those of which a key of this
# quantity has one at least, and those that it may have.
_EXPERT_WORDS: dict[Quantity, tuple[set[str], set[str]]] = {
    "experts": (set(), {"n", "num", "number", "count"}),
    "top_k": (
        {"route", "routed", "routing", "topk", "k", "active", "activated", "token"},
        {"n", "num", "number", "count", "to", "top"},
    ),
    "expert_sizes": ({"ffn", "dim", "size", "intermediate", "inter", "hidden"}, {"embed", "embedding"}),
}
_FILLERS = {"expert", "all", "each", "per", "of", "layer", "moe", "subtransformer"}
_EXPERT_NAMES = tuple(  # one spelling of each, for messages
    f"{stack}-{name}-all-subtransformer"
    for stack in STACKS
    for name in ("n-experts", "n-experts-to-route", "expert-ffn-embed-dim")
)

# The rest of a configuration of HAT's, which says nothing of this architecture.
_TRAINING = (  # how it is trained; here a recipe says so
    "train-subtransformer arch data max-tokens optimizer adam-betas clip-norm weight-decay dropout "
    "attention-dropout criterion label-smoothing ddp-backend fp16 update-freq max-update warmup-updates "
    "lr-scheduler warmup-init-lr max-lr lr lr-shrink keep-last-epochs save-interval validate-interval"
)
_SUPERNET = (  # the supernet that it is cut from
    "encoder-embed-dim decoder-embed-dim encoder-ffn-embed-dim decoder-ffn-embed-dim encoder-layers "
    "decoder-layers encoder-attention-heads decoder-attention-heads"
)
_VOCABULARY = "share-all-embeddings"  # an `Architecture` is one without its vocabulary
_IGNORED = tuple(f"{_TRAINING} {_SUPERNET} {_VOCABULARY}".split())

_NUMBER = re.compile(r"\d{1,6}", re.ASCII)
_SIZES = re.compile(r"\d{1,6}(_\d{1,6})*", re.ASCII)


def is_hat(plain: Mapping[Any, Any]) -> bool:
    """Whether a file is of this kind, rather than of this package's own."""
    return any(isinstance(key, str) and _dashed(key).endswith("-subtransformer") for key in plain)


def architecture_from_hat(plain: Mapping[str, Any]) -> Architecture:
    """The architecture that a file of HAT's or AutoMoE's describes.

    Args:
        plain: its keys and values; every scalar is the text that the file has (YAML takes a bare `3072_1024`
            for the number 30721024).

    Raises:
        InputError: keys that are not understood, or say the same twice; values that are missing, wrong or
            contradict each other. All are listed.
    """
    problems: list[str] = []
    file = _File(plain, _keys_by_meaning(plain, problems), problems)
    qkv_key = next((key for key in plain if _dashed(key) == _QKV_NAME), None)
    values = {
        "encoder_width": file.number("encoder", "width"),
        "decoder_width": file.number("decoder", "width"),
        "qkv_dim": HAT_QKV_DIM if qkv_key is None else file.parsed(qkv_key, plain[qkv_key]),
        "encoder": file.layers("encoder"),
        "decoder": file.layers("decoder"),
    }
    if problems:
        raise InputError("is not a HAT or AutoMoE architecture", list(dict.fromkeys(problems)))
    return Architecture.from_dict(values)


def _dashed(key: str) -> str:
    return key.strip().lower().replace("_", "-")


def _meaning(key: str) -> list[tuple[Stack, Quantity]]:
    """What a key says; about experts it may say it of both stacks."""
    name = _dashed(key)
    if name in _HAT_MEANINGS:
        return [_HAT_MEANINGS[name]]
    words = {word.removesuffix("s") for word in name.split("-")}
    stacks = [stack for stack in STACKS if stack in words]
    words -= set(stacks)
    if "expert" not in words or len(stacks) > 1:
        return []
    words -= _FILLERS
    for quantity, (needed, others) in _EXPERT_WORDS.items():
        if words <= needed | others and (words & needed or not needed):
            return [(stack, quantity) for stack in stacks or STACKS]
    return []


def _keys_by_meaning(plain: Mapping[str, Any], problems: list[str]) -> dict[tuple[Stack, Quantity], str]:
    """The key of every quantity that a file has; problems: those not understood, or of one meaning."""
    keys: dict[tuple[Stack, Quantity], str] = {}
    unknown = []
    for key in plain:
        meaning = _meaning(key)
        for place in meaning:
            if place in keys:
                problems.append(f"{key}: says the same as {keys[place]}; delete one of them")
            keys[place] = key
        if not meaning and _dashed(key) not in (_QKV_NAME, *_IGNORED):
            unknown.append(f"{key}: unknown key")
    if unknown:
        known = ", ".join((*_HAT_MEANINGS, _QKV_NAME, *_EXPERT_NAMES))
        ignored = ", ".join(_IGNORED)
        problems += [*unknown, f"known keys: {known}", f"known to say nothing of an architecture: {ignored}"]
    return keys


@dataclass(frozen=True)
class _File:
    """What a file says. Whatever is wrong is added to `problems`, and some number stands for it."""

    plain: Mapping[str, Any]
    keys: Mapping[tuple[Stack, Quantity], str]
    problems: list[str]

    def layers(self, stack: Stack) -> list[dict[str, Any]]:
        """The layers of a stack, as `Architecture.from_dict` reads them."""
        depth = self.number(stack, "depth")
        experts = self.experts(stack, depth)
        columns: dict[str, list[Any]] = {
            "self_attention_heads": self.numbers(stack, "self_heads", depth),
            "experts": experts,
            "top_k": [
                top_k if len(sizes) > 1 else 1  # one expert is a dense FFN: nothing is routed
                for sizes, top_k in zip(experts, self.numbers(stack, "top_k", depth, default=1), strict=True)
            ],
        }
        if stack == "decoder":
            columns["cross_attention_heads"] = self.numbers(stack, "cross_heads", depth)
            columns["encoder_layers_attended"] = self.attended(depth)
        return [dict(zip(columns, layer, strict=True)) for layer in zip(*columns.values(), strict=True)]

    def experts(self, stack: Stack, depth: int) -> list[list[int]]:
        """The FFN sizes of each layer's experts."""
        each_key = self.keys.get((stack, "expert_sizes"))
        ffn_key = self.keys.get((stack, "ffn_sizes"))
        key = each_key or ffn_key
        if key is None:
            self.missing(stack, "ffn_sizes")
            return [[]] * depth
        entries = self.column(key, depth)
        sizes = [self.sizes(key, entry) for entry in entries]
        if (stack, "experts") in self.keys:
            counts = self.numbers(stack, "experts", depth)
            # Where no layer lists sizes, the one of a layer is that of each of its experts.
            if not any(isinstance(entry, list) or "_" in entry for entry in entries):
                sizes = [one * count for one, count in zip(sizes, counts, strict=True)]
            for index, (listed, count) in enumerate(zip(sizes, counts, strict=True)):
                if len(listed) < count:
                    problem = f"{count} experts, but {len(listed)} FFN sizes in {key}"
                    self.problems.append(f"{stack} layer {index}: {problem}")
            sizes = [listed[:count] for listed, count in zip(sizes, counts, strict=True)]
        if each_key and ffn_key:
            dense = [self.sizes(ffn_key, entry) for entry in self.column(ffn_key, depth)]
            for index, (one, other) in enumerate(zip(sizes, dense, strict=True)):
                if len(one) == 1 and one != other:
                    problem = f"one expert, of {one[0]} in {each_key} and of {other[0]} in {ffn_key}"
                    self.problems.append(f"{stack} layer {index}: {problem}; delete the wrong key")
        return sizes

    def number(self, stack: Stack, quantity: Quantity) -> int:
        """The one number of a stack."""
        key = self.keys.get((stack, quantity))
        return self.missing(stack, quantity) if key is None else self.parsed(key, self.plain[key])

    def numbers(self, stack: Stack, quantity: Quantity, depth: int, default: int | None = None) -> list[int]:
        """A number a layer."""
        key = self.keys.get((stack, quantity))
        if key is None:
            return [self.missing(stack, quantity) if default is None else default] * depth
        return [self.parsed(key, entry) for entry in self.column(key, depth)]

    def column(self, key: str, depth: int) -> list[Any]:
        """An entry for each layer in use."""
        value = self.plain[key]
        if not isinstance(value, list):
            return [value] * depth
        if len(value) < depth:
            self.problems.append(f"{key}: expected a value for each of {depth} layers, got {value!r:.60}")
            return value + ["1"] * (depth - len(value))
        return value[:depth]

    def sizes(self, key: str, entry: Any) -> list[int]:
        """FFN sizes from `3072_1024` or from a list."""
        if isinstance(entry, list):
            return [self.parsed(key, one) for one in entry]
        if isinstance(entry, str) and _SIZES.fullmatch(entry):
            return [int(size) for size in entry.split("_")]
        self.problems.append(f"{key}: expected FFN sizes such as 3072 or 3072_1024, got {entry!r:.60}")
        return [1]

    def attended(self, depth: int) -> list[int]:
        """How many encoder layers each decoder layer attends to."""
        key = self.keys.get(("decoder", "attended"))
        if key is None:
            return [1] * depth
        codes = self.column(key, depth)
        if "0" in codes:
            problem = "expected -1 (the last encoder layer), 1 (the last two) or 2 (the last three), got 0"
            self.problems.append(f"{key}: {problem}")
        return [1 if code == "-1" else 1 + self.parsed(key, code) for code in codes]

    def parsed(self, key: str, entry: Any) -> int:
        """A number from the text that a file has."""
        if isinstance(entry, str) and _NUMBER.fullmatch(entry):
            return int(entry)
        self.problems.append(f"{key}: expected a number below 1,000,000, got {entry!r:.60}")
        return 1

    def missing(self, stack: Stack, quantity: Quantity) -> int:
        """Note that a key of HAT's is missing."""
        self.problems.append(f"{_HAT_NAMES[stack][quantity]}: missing")
        return 1
