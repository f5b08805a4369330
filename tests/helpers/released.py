"""The models of `tests/data/models`: one of each format that users have, and what each said when it was made.

    PYTHONPATH=src:tests python -m helpers.released tests/data/models/NUMBER

makes them anew, in a folder that is not there yet: after a format changed, beside the older ones, which
must still be read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from automoe.data.tokenizer import Tokenizer
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.design.architecture_file import save_architecture
from automoe.export.huggingface import export_huggingface
from automoe.export.onnx import export_onnx
from automoe.inference.backends import ENGINES, load_engine
from automoe.inference.model_folder import load_model, save_model
from automoe.inference.translator import Translator
from helpers.paths import REPOSITORY
from helpers.tiny_run import run_here, write_tiny_recipe

# Mixtures, an identity expert, two experts a token, two encoder layers attended.
ARCHITECTURE = Architecture(
    encoder_width=16,
    decoder_width=16,
    qkv_dim=16,
    encoder=(EncoderLayer(2, (24, 0)), EncoderLayer(4, (16, 32, 24), top_k=2)),
    decoder=(DecoderLayer(2, 2, (24, 16), encoder_layers_attended=2),),
)
TEXTS = [
    "1 2 3",
    "7 0 4 4 9 1",
    "\ufeff 8\u00ad 6\u2028 5 ",
    "3 🙂 9 2",
    "漢字",
    "",
    "1 2 3 4 5 6 7 8 9 0 " * 3,
]


def make(folder: Path) -> None:
    """Train a model that reverses digits; write its folder, its exports and what they say to a new folder."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        recipe = write_tiny_recipe(Path(name))
        save_architecture(ARCHITECTURE, Path(name) / "released.yaml")
        systems = "systems=[{name: released, architecture: released.yaml}]"
        training = ["training.steps=800", "training.validate_every=200", "fine_tuning=null"]
        run_here(recipe, systems, "baseline=released", *training, until="train")
        trained = Path(name) / "runs" / "tiny" / "seed-1" / "train-released" / "model"
        model, tokenizer = load_model(trained)
        save_model(folder / "model", model, tokenizer, {})
    export_onnx(folder / "model", folder / "onnx-float32")
    export_onnx(folder / "model", folder / "onnx-int8", "int8")
    export_huggingface(folder / "model", folder / "huggingface")
    text = json.dumps(said(folder), ensure_ascii=True, indent=1)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


def said(folder: Path) -> dict[str, Any]:
    """What the models of a folder say of `TEXTS` now: token ids; translations by each engine and program."""
    tokenizer = Tokenizer.load(folder / "model" / "tokenizer.json")
    found: dict[str, Any] = {"token ids": tokenizer.encode(TEXTS)}
    for backend, precisions in ENGINES.items():
        for precision in precisions:
            engine, tokenizer = load_engine(folder / "model", backend, precision, threads=1)
            translator = Translator(engine, tokenizer)
            found[f"model, {backend} {precision}"] = list(translator.translate(TEXTS))
    for precision in ("float32", "int8"):
        exported = _exported(folder / f"onnx-{precision}", folder / "huggingface")
        found[f"onnx-{precision}"], found["huggingface"] = exported
    return found


def _exported(onnx: Path, huggingface: Path) -> list[list[str]]:
    """What two exported folders say, the second greedily, by programs that do not know this package."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, REPOSITORY / "tests" / "helpers" / "exported_client.py", onnx, huggingface],
            env=os.environ | {"HF_HOME": home, "HF_MODULES_CACHE": home, "PYTHONDONTWRITEBYTECODE": "1"},
            input=json.dumps({"greedily": TEXTS}) + "\n",
            capture_output=True,
            encoding="utf-8",
        )
    assert done.returncode == 0, done.stderr
    translations: list[list[str]] = json.loads(done.stdout)
    return translations


if __name__ == "__main__":
    make(Path(sys.argv[1]))
