"""Translate standard input greedily: pip install onnxruntime tokenizers; python translate.py < text"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from text_parts import LineSplitter, join_parts, wordless_tokens
from tokenizers import Tokenizer

folder = Path(__file__).parent
config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.encode_special_tokens = True
encoder, decoder = (onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("encoder", "decoder"))
pad, bos, eos, unk = (config[f"{name}_id"] for name in ("pad", "bos", "eos", "unk"))


def encode(text: str) -> list[int]:
    """The token ids of a text."""
    return [max(token, unk) for token in tokenizer.encode(text, add_special_tokens=False).ids]


def normalise(text: str) -> str:
    """A text as the vocabulary reads it."""
    normalised: str = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
    return normalised


splitter = LineSplitter(encode, normalise, unk, wordless_tokens(tokenizer.get_vocab()))


def translate(line: str) -> str:
    """The translations of a line's parts, which is one but for a long line."""
    parts = splitter.parts(line, encode(line))
    texts = [translate_tokens([*part.tokens, eos]) if part.tokens else part.text for part in parts]
    joined: str = join_parts(texts)
    return joined


def translate_tokens(source: list[int]) -> str:
    """The translation that takes the most probable token at every step."""
    names = [output.name for output in encoder.get_outputs()]
    feeds = dict(zip(names, encoder.run(names, {"source": np.array([source])}), strict=True))
    feeds["source_visible"] = np.zeros((1, 1, 1, len(source)), np.float32)
    for state in config["state"]:
        if state["per"] == "position":  # grows with every token
            feeds[state["name"]] = np.empty((1, state["heads"], 0, state["size"]), np.float32)
        elif state["per"] == "beam":  # replaced with every token; what is per source the encoder has made
            feeds[state["name"]] = np.zeros((1, 1, state["heads"], state["size"]), np.float32)
    caches = [output.name for output in decoder.get_outputs() if output.name.startswith("new_")]
    longest = int(config["max_length_ratio"] * len(source)) + config["max_length_extra"]
    tokens = [bos]
    while len(tokens) < longest:  # the last token allowed is end-of-sentence
        feeds |= {"tokens": np.array([tokens[-1:]]), "position": np.array(len(tokens) - 1)}
        feeds |= {"candidates": np.array([4]), "visible": np.zeros((1, 1, 1, len(tokens)), np.float32)}
        best, *new = decoder.run(["extensions", *caches], feeds)
        feeds |= {name.removeprefix("new_"): cache for name, cache in zip(caches, new, strict=True)}
        forbidden = {pad, bos} | ({eos} if len(tokens) < config["min_length"] else set())
        tokens.append(next(token for token in best[0, 0].tolist() if token not in forbidden))
        if tokens[-1] == eos:
            break
    return " ".join(tokenizer.decode(tokens).splitlines())


def main() -> int:
    """A line out for every line in, as soon as it is there, both in UTF-8; the exit code."""
    if sys.stdin is None or sys.stdout is None:
        return fail("standard input or output is closed", 2)
    try:
        for number, line in enumerate(sys.stdin.buffer, start=1):
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                return fail(f"standard input, line {number}: is not UTF-8: {error}", 2)
            sys.stdout.buffer.write(translate(text).encode("utf-8") + b"\n")
            sys.stdout.buffer.flush()
    except OSError as error:  # the reader is gone, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # takes what is still buffered
        return fail(f"standard input or output fails: {error.strerror}", 1)
    return 0


def fail(message: str, code: int) -> int:
    """Say what is wrong, where somebody listens; the exit code."""
    if sys.stderr is not None:
        print(f"translate.py: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
