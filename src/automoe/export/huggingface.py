"""A trained model as a Hugging Face folder, which `transformers` loads without this package.

    model.safetensors         the same tensors, renamed by `exported_name`
    config.json               architecture, special tokens, which classes of the folder to use
    generation_config.json    the beam search under which `generate` gives this package's translations
    tokenizer.json            the vocabulary; end-of-sentence is appended to a source
    tokenizer_config.json     the special tokens
    *_automoe.py              the model for `transformers` (`hf_template/`)
    text_parts.py             how the pipeline splits a long text
    README.md                 the model card

Writing it needs no `transformers`: these files are plain JSON and safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, assert_never

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from automoe.data.text_parts import MAX_SOURCE_TOKENS
from automoe.data.tokenizer import replace_special_words
from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS, UNK_ID
from automoe.design.architecture import (
    Architecture,
    AverageAttention,
    CrossAttention,
    FeedForward,
    SelfAttention,
    Ssru,
)
from automoe.export.export_folder import write_folder
from automoe.export.model_card import model_card
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.model_folder import CONFIG, TOKENIZER, WEIGHTS, load_model, read_card
from automoe.model.transformer import Transformer
from automoe.storage import whole_file, write_json, write_text

MODEL_TYPE = "automoe"
TEMPLATE = (
    "configuration_automoe.py",
    "generation_automoe.py",
    "modeling_automoe.py",
    "pipeline_automoe.py",
)
_RENAMES = (
    (r"^embedding$", "encoder.embedding.weight"),
    (r"^(encoder|decoder)_norm\.", r"\1.norm."),
    (r"^(encoder|decoder)\.(\d+)\.", r"\1.layers.\2."),
    (r"\.ffn\.mixture\.", ".mixture."),
    (r"_residual\.norm\.", "_norm."),
)


def export_huggingface(folder: Path, output: Path) -> None:
    """Write the model folder `folder` as the Hugging Face folder `output`, complete or not at all.

    An earlier export at `output` is replaced.

    Args:
        folder: as `save_model` wrote it.
        output: does not exist, is empty, or is an earlier export.

    Raises:
        InputError: `folder` is not a model folder; `output` is anything else, or cannot be written.
    """
    model, _ = load_model(folder)
    _check_kinds(model.architecture)
    write_folder(output, ("model_type", MODEL_TYPE), lambda partial: _write(partial, folder, model))


def exported_name(name: str) -> str:
    """The name under which the exported folder holds the tensor `name` of `Transformer.state_dict()`."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _check_kinds(architecture: Architecture) -> None:
    """The type checker points here when `hf_template/` lacks a kind of sub-layer."""
    for layer in architecture.layers():
        for sublayer in layer.sublayers:
            match sublayer:
                case SelfAttention() | AverageAttention() | Ssru() | CrossAttention() | FeedForward():
                    pass
                case _:
                    assert_never(sublayer)


def _write(output: Path, folder: Path, model: Transformer) -> None:
    settings = BeamSettings()
    tensors: dict[str, Tensor] = model.state_dict()
    weights = {exported_name(name): tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    with whole_file(output / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    _write_tokenizer(output, folder / TOKENIZER)
    card = read_card(folder)
    write_json(output / CONFIG, _config(model, settings, card))
    write_json(output / "generation_config.json", _generation_config(settings))
    template = resources.files("automoe.export") / "hf_template"
    for file in (*(template / name for name in TEMPLATE), resources.files("automoe.data") / "text_parts.py"):
        write_text(output / file.name, file.read_text(encoding="utf-8"))
    write_text(output / "README.md", model_card(model, card, settings))


def _config(model: Transformer, settings: BeamSettings, card: Mapping[str, Any]) -> dict[str, Any]:
    languages = {name: card[name] for name in ("source_language", "target_language") if card.get(name)}
    tasks = ["translation"]
    if len(languages) == 2:
        tasks.append(f"translation_{languages['source_language']}_to_{languages['target_language']}")
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["AutomoeForTranslation"],
        "auto_map": {
            "AutoConfig": "configuration_automoe.AutomoeConfig",
            "AutoModelForSeq2SeqLM": "modeling_automoe.AutomoeForTranslation",
        },
        "custom_pipelines": {
            task: {
                "impl": "pipeline_automoe.AutomoeTranslationPipeline",
                "pt": ["AutoModelForSeq2SeqLM"],
                "tf": [],
            }
            for task in tasks
        },
        "architecture": model.architecture.to_dict(),
        "vocab_size": model.vocabulary_size,
        "norm": model.options.norm,
        "max_length_ratio": settings.max_length_ratio,
        "max_length_extra": settings.max_length_extra,
        "is_encoder_decoder": True,
        "torch_dtype": "float32",
        **languages,
        **_special_token_ids(),
    }


def _generation_config(settings: BeamSettings) -> dict[str, Any]:
    """`generate`'s names for the beam search of this package.

    It too divides by the length, end-of-sentence counted, to the power `length_penalty`, and with
    `early_stopping` it too is done when as many hypotheses are finished as there are beams.
    `min_new_tokens` n forbids end-of-sentence up to the n-th token, ours up to the one before `min_length`.
    The longest translation depends on the source: the model's own `generate` sees to it.
    """
    return {
        "num_beams": settings.beam_size,
        "do_sample": False,
        "length_penalty": settings.length_penalty,
        "early_stopping": True,
        "min_new_tokens": settings.min_length - 1,
        "suppress_tokens": [PAD_ID, BOS_ID],
        **_special_token_ids(),
    }


def _special_token_ids() -> dict[str, int]:
    return {
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": BOS_ID,
    }


def _write_tokenizer(output: Path, source: Path) -> None:
    tokenizer = tokenizers.Tokenizer.from_str(source.read_text(encoding="utf-8"))
    replace_special_words(tokenizer)  # where this is an earlier version's tokenizer
    end = SPECIAL_TOKENS[EOS_ID]
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, EOS_ID)]
    )
    write_text(output / TOKENIZER, tokenizer.to_str(pretty=True))
    names = {"pad_token": PAD_ID, "bos_token": BOS_ID, "eos_token": EOS_ID, "unk_token": UNK_ID}
    write_json(
        output / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{name: SPECIAL_TOKENS[token] for name, token in names.items()},
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": MAX_SOURCE_TOKENS,
            "padding_side": "right",
            # A text that spells "</s>" is spelled, as here; it does not end the sentence.
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
        },
    )
