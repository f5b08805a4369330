"""The model card of an exported folder: what the model is, what was measured of it, how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_never

import yaml

from automoe.cost.counting import count
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import (
    AverageAttention,
    CrossAttention,
    FeedForward,
    Layer,
    SelfAttention,
    Ssru,
)
from automoe.inference.beam_settings import BeamSettings
from automoe.model.transformer import Transformer

FACTS = ("license", "source_language", "target_language", "corpus")
"""Keys of a model folder's card that say what the model may be used for; the others are figures."""

# What the figures of a training are called; others are shown under their own names.
_LABELS = {
    "target_tokens": "target tokens seen in training",
    "seconds": "training, seconds",
    "validation.valid": "validation loss, nats a token",
}


def model_card(model: Transformer, card: Mapping[str, Any], settings: BeamSettings) -> str:
    """The README.md of the folder: Markdown behind the YAML fields that model hubs read.

    Args:
        card: of the model folder. `license`, `source_language`, `target_language` and `corpus` are named in
            the text and the fields; all other entries are shown as measured figures.
        settings: of the beam search the folder's defaults stand for.
    """
    facts = {name: str(card[name]) for name in FACTS if card.get(name)}
    figures = {name: value for name, value in card.items() if name not in FACTS}
    sections = (
        _fields(facts),
        _introduction(model, facts),
        _usage(settings),
        _architecture(model),
        _figures(figures),
        _licence(facts),
    )
    return "\n".join(sections)


def _fields(facts: Mapping[str, str]) -> str:
    languages = [facts[name] for name in ("source_language", "target_language") if name in facts]
    fields: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "translation",
        "tags": ["automoe", "mixture-of-experts", "translation"],
        "license": facts.get("license", "unknown"),
    }
    if languages:
        fields["language"] = languages
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---\n"


def _introduction(model: Transformer, facts: Mapping[str, str]) -> str:
    source, target = facts.get("source_language"), facts.get("target_language")
    pair = f", {source} to {target}" if source and target else ""
    mixtures = sum(len(layer.feed_forward.experts) > 1 for layer in model.architecture.layers())
    kind = (
        f"with a mixture of experts in {mixtures} layers, whose experts may differ in size"
        if mixtures
        else "without mixtures of experts"
    )
    corpus = f" Training corpus: {facts['corpus']}." if "corpus" in facts else ""
    return f"""# AutoMoE translation model{pair}

An encoder-decoder Transformer {kind},
trained with AutoMoE (after Jawahar et al., AutoMoE, Findings of ACL 2023).{corpus}
"""


def _usage(settings: BeamSettings) -> str:
    return f"""## Use

    from transformers import pipeline
    translate = pipeline("translation", model="THIS_FOLDER", trust_remote_code=True)
    print(translate("Click OK.")[0]["translation_text"])

or, with the parts:

    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER", trust_remote_code=True)
    model = AutoModelForSeq2SeqLM.from_pretrained("THIS_FOLDER", trust_remote_code=True)
    batch = tokenizer(["Click OK."], return_tensors="pt", padding=True)
    print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))

It runs with transformers 4.57 and 5, without AutoMoE; `trust_remote_code` runs the short Python files
of this folder. (The tokenizer needs none of them, but transformers 5 asks.) The model translates sentence by
sentence; the pipeline splits a text that is too long at its sentence ends. It is for inference: to train it
on, use AutoMoE.

`generate` searches as AutoMoE does and finds the same translation: beam {settings.beam_size}, log probability
divided by length (end-of-sentence counted) to the power {settings.length_penalty:g}, no translation longer
than {settings.max_length_ratio:g} tokens a source token and {settings.max_length_extra} more. `num_beams=1`
is greedy; `max_length` and `max_new_tokens` make translations shorter, not longer. With
`num_return_sequences` above 1 the first translation is the same; the others may differ where more hypotheses
end at once than are kept.
"""


def _architecture(model: Transformer) -> str:
    a = model.architecture
    counts = count(a, MeasuringProtocol(vocabulary_size=model.vocabulary_size, norm=model.options.norm))
    rows = [
        "| layer | heads | attends to | FFN sizes of its experts | experts a token |",
        "|---|---|---|---|---:|",
    ]
    rows += [f"| {layer.stack} {layer.index} | {_layer(layer)} |" for layer in a.layers()]
    return "\n".join(
        [
            "## Architecture",
            "",
            f"Width {a.encoder_width} in the encoder and {a.decoder_width} in the decoder, {a.qkv_dim} in "
            f"attention, {model.options.norm}-norm, vocabulary {model.vocabulary_size:,} (one embedding for "
            "source, target and output).",
            "",
            *rows,
            "",
            "| count | |",
            "|---|---:|",
            f"| parameters, all | {counts.total_parameters:,} |",
            f"| parameters without embedding and output layer | {counts.parameters:,} |",
            f"| of those active for one token (experts equally likely) | {counts.active_parameters:,} |",
            f"| FLOPs of 30 source and 30 target tokens, output layer excluded | {counts.flops:,} |",
            "",
        ]
    )


def _layer(layer: Layer) -> str:
    heads: list[str] = []
    attended, experts = "", ""
    for sublayer in layer.sublayers:
        match sublayer:
            case SelfAttention(count):
                heads.append(f"{count} self")
            case AverageAttention():
                heads.append("average attention")
            case Ssru():
                heads.append("SSRU")
            case CrossAttention(count, layers):
                heads.append(f"{count} cross")
                attended = "last encoder layer" if layers == 1 else f"last {layers} encoder layers"
            case FeedForward(_, top_k):
                sizes = ", ".join(str(size) if size else "identity" for size in sublayer.ffn_sizes)
                experts = f"{sizes} | {top_k}"
            case _:
                assert_never(sublayer)
    # Where there is but one attention, its kind goes without saying.
    shown = heads[0].split()[0] if len(heads) == 1 else ", ".join(heads)
    return f"{shown} | {attended} | {experts}"


def _figures(figures: Mapping[str, Any]) -> str:
    rows = [f"| {_LABELS.get(name, name)} | {_value(value)} |" for name, value in _flat("", figures)]
    if not rows:
        return "## Measured figures\n\nNone were recorded with the model.\n"
    return "\n".join(["## Measured figures", "", "| figure | |", "|---|---:|", *rows, ""])


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, `a.b` the name of an inner one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text.replace("|", r"\|").replace("\n", " ")


def _licence(facts: Mapping[str, str]) -> str:
    weights = (
        f"The weights: {facts['license']}."
        if "license" in facts
        else "The licence of the weights was not recorded. It depends on the training corpus: state it in "
        "the field `license` above before you publish them."
    )
    return f"""## Licence

{weights} The Python files of this folder are part of AutoMoE, MIT licence.
"""
