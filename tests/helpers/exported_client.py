"""A program that knows two exported folders of one model: it runs where AutoMoE is not installed.

    python exported_client.py ONNX_FOLDER HUGGINGFACE_FOLDER

A line of standard input is a JSON object: {"parts": text}, {"translate": texts}, or {"greedily": texts},
which only the second folder does. A line of standard output is what each folder makes of it, ONNX first:
`[text, token ids]` of each part, no ids where the text is copied; or the translations.
"""

import json
import sys

sys.modules["automoe"] = None  # importing it now fails, installed or not

onnx_folder, huggingface_folder = sys.argv[1:]
sys.path.insert(0, onnx_folder)

import translate as onnx  # noqa: E402
from transformers import pipeline  # noqa: E402

translator = pipeline("translation", model=huggingface_folder, trust_remote_code=True)


def parts(text: str) -> list:
    """The parts of a text."""
    ours = [list(part) for part in onnx.splitter.parts(text, onnx.encode(text))]
    theirs = [[one["copied"], one["input_ids"][0, :-1].tolist()] for one in translator.preprocess(text)]
    return [ours, theirs]


def translations(texts: list, **settings: int) -> list:
    """The translations of texts."""
    found = translator(texts, batch_size=64, **settings)
    return [[onnx.translate(text) for text in texts], [one["translation_text"] for one in found]]


for line in sys.stdin:
    (name, value), *_ = json.loads(line).items()
    settings = {"num_beams": 1} if name == "greedily" else {}
    print(json.dumps(parts(value) if name == "parts" else translations(value, **settings)), flush=True)
