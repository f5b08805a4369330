"""A trained model as two ONNX graphs that ONNX Runtime runs alone, without torch or this package.

encoder.onnx, decoder.onnx   the graphs of `automoe.inference.onnx_graph`
tokenizer.json               the vocabulary, for the library `tokenizers`
config.json                  what a program that decodes has to know
translate.py                 such a program, with greedy search
text_parts.py                how a long line is split, for translate.py
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Any, assert_never

import onnx

from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from automoe.design.architecture import Architecture, CrossAttention, FeedForward, SelfAttention
from automoe.export.export_folder import write_folder
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.model_folder import CONFIG, TOKENIZER, load_model
from automoe.inference.onnx_graph import OPSET, GraphPrecision, decoder_graph, encoder_graph
from automoe.storage import whole_file, write_json, write_text

FORMAT = "automoe-onnx-1"


def export_onnx(folder: Path, output: Path, precision: GraphPrecision = "float32") -> None:
    """Write the model folder `folder` as the ONNX folder `output`; an earlier export there is replaced.

    Raises:
        InputError: `folder` is not a model folder, the model is too large for a graph (2 GiB), or `output`
            has other files or cannot be written.
    """
    model, _ = load_model(folder)
    settings = BeamSettings()
    config = {
        "format": FORMAT,
        "precision": precision,
        "opset": OPSET,
        "architecture": model.architecture.to_dict(),
        **_state(model.architecture),
        "vocabulary_size": model.vocabulary_size,
        "pad_id": PAD_ID,
        "bos_id": BOS_ID,
        "eos_id": EOS_ID,
        "unk_id": UNK_ID,
        "min_length": settings.min_length,
        "max_length_ratio": settings.max_length_ratio,
        "max_length_extra": settings.max_length_extra,
    }

    def write(partial: Path) -> None:
        for name, make in (("encoder", encoder_graph), ("decoder", decoder_graph)):
            with whole_file(partial / f"{name}.onnx") as temporary:
                onnx.save(make(model, precision), temporary)
        with whole_file(partial / TOKENIZER) as temporary:
            shutil.copyfile(folder / TOKENIZER, temporary)
        write_json(partial / CONFIG, config)
        example = resources.files("automoe.export") / "onnx_template" / "translate.py"
        for file in (example, resources.files("automoe.data") / "text_parts.py"):
            write_text(partial / file.name, file.read_text(encoding="utf-8"))

    write_folder(output, ("format", FORMAT), write)


def _state(architecture: Architecture) -> dict[str, Any]:
    """What `config.json` says of the tensors that the decoder reads again at every step.

    state: of each, the graph's name; what there is an entry for (`position`: shape 1, heads, positions so
        far, size; `beam`: shape 1, beams, heads, size; `source`: the encoder's output of this name); heads
        and size.
    cache_heads, cache_sizes: those of each layer's self-attention, all that earlier programs look at.
    """
    state: list[dict[str, Any]] = []
    heads: list[int] = []
    sizes: list[int] = []
    for layer in architecture.layers("decoder"):
        for sublayer in layer.sublayers:
            kept = sublayer.decoder_state(layer.width, architecture.qkv_dim)
            for tensor in kept:
                name = f"{tensor.name}_{layer.index}"
                state.append({"name": name, "per": tensor.per, "heads": tensor.heads, "size": tensor.size})
            match sublayer:
                case SelfAttention():
                    heads.append(sublayer.heads)
                    sizes.append(kept[0].size)
                case CrossAttention() | FeedForward():
                    pass
                case _:
                    assert_never(sublayer)
    return {"state": state, "cache_heads": heads, "cache_sizes": sizes}
