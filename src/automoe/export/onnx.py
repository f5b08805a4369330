"""A trained model as two ONNX graphs that ONNX Runtime runs alone, without torch or this package.

encoder.onnx, decoder.onnx   the graphs of `automoe.inference.onnx_graph`
tokenizer.json               the vocabulary, for the library `tokenizers`
config.json                  what a program that decodes has to know
translate.py                 such a program: 40 lines, greedy search
"""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import onnx

from automoe.data.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from automoe.export.export_folder import write_folder
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.model_folder import CONFIG, TOKENIZER, load_model
from automoe.inference.onnx_graph import OPSET, GraphPrecision, decoder_graph, encoder_graph

FORMAT = "automoe-onnx-1"


def export_onnx(folder: Path, output: Path, precision: GraphPrecision = "float32") -> None:
    """Write the model folder `folder` as the ONNX folder `output`; an earlier export there is replaced.

    Raises:
        InputError: `folder` is not a model folder, the model is too large for a graph (2 GiB), or `output`
            has other files or cannot be written.
    """
    model, _ = load_model(folder)
    settings = BeamSettings()
    architecture = model.architecture
    self_keys = [
        state
        for layer in architecture.layers("decoder")
        for sublayer in layer.sublayers
        for state in sublayer.decoder_state(layer.width, architecture.qkv_dim)
        if state.name == "self_keys"
    ]
    config = {
        "format": FORMAT,
        "precision": precision,
        "opset": OPSET,
        "architecture": architecture.to_dict(),
        # Of the self-attention caches, by decoder layer: heads and the size of a head.
        "cache_heads": [keys.heads for keys in self_keys],
        "cache_sizes": [keys.size for keys in self_keys],
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
            onnx.save(make(model, precision), partial / f"{name}.onnx")
        shutil.copyfile(folder / TOKENIZER, partial / TOKENIZER)
        (partial / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        example = resources.files("automoe.export") / "onnx_template" / "translate.py"
        (partial / "translate.py").write_text(example.read_text(encoding="utf-8"), encoding="utf-8")

    write_folder(output, _is_export, write)


def _is_export(output: Path) -> bool:
    try:
        config = json.loads((output / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == FORMAT
