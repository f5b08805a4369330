"""Translate standard input: pip install onnxruntime tokenizers; python translate.py < text"""

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
graph = onnxruntime.InferenceSession(folder / "translation.onnx")
unk, eos, pad = (config[f"{name}_id"] for name in ("unk", "eos", "pad"))
search = config["search"]
if config["shortlist"]:
    from likely_tokens import likely_tokens, read_tensors

    tables = read_tensors(folder / "shortlist.safetensors")


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
    """The best translation that the beam search finds."""
    longest = int(search["max_length_ratio"] * len(source) + search["max_length_extra"])
    feeds = {
        "source": np.array([source]),
        "max_lengths": np.array([max(longest, search["min_length"])]),
        "length_penalty": np.array(search["length_penalty"], np.float32),
        **{name: np.array([search[name]]) for name in ("beam_size", "n_best", "min_length")},
    }
    if config["shortlist"]:
        feeds["shortlist"] = likely_tokens(feeds["source"], **tables, size=config["shortlist"])
    (tokens,) = graph.run(["tokens"], feeds)
    best = tokens[0, 0]
    return " ".join(tokenizer.decode(best[best != pad]).splitlines())


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
