"""Translate standard input: pip install onnxruntime tokenizers; python translate.py < text"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from text_parts import LineSplitter, join_parts, wordless_tokens
from tokenizers import Tokenizer

FORMAT = "automoe-onnx-2"
KEYS = ("sha256", "vocabulary_size", "onnxruntime", "pad_id", "eos_id", "unk_id", "shortlist", "search")


class FolderError(Exception):
    """What is wrong with the folder."""


def open_folder(folder: Path) -> tuple[dict[str, Any], Tokenizer, onnxruntime.InferenceSession]:
    """Its configuration, vocabulary and graph.

    Raises:
        FolderError: a file is missing, damaged or of another export, or onnxruntime is too old.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
        if config.get("format") != FORMAT:
            raise FolderError(f"config.json: is of the format {config.get('format')}, not {FORMAT}")
        missing = [key for key in KEYS if key not in config]
        if missing:
            raise FolderError(f"config.json: lacks {', '.join(missing)}")
        for name, digest in config["sha256"].items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    mend = "copy the whole folder, or export anew"
                    raise FolderError(f"{name}: is not the file that config.json was written with; {mend}")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.encode_special_tokens = True
        found, told = tokenizer.get_vocab_size(), config["vocabulary_size"]
    except OSError as error:
        raise FolderError(f"{error.filename}: {error.strerror}") from error
    except (AttributeError, ValueError) as error:
        raise FolderError(f"config.json: is damaged: {error}") from error
    if found != told:
        raise FolderError(f"tokenizer.json: has {found} tokens, but config.json says {told}")
    version, oldest = onnxruntime.__version__, config["onnxruntime"]
    if comparable(version) < comparable(oldest):
        raise FolderError(f"onnxruntime {version} is too old: translation.onnx needs {oldest} or a newer one")
    try:
        graph = onnxruntime.InferenceSession(folder / "translation.onnx")
    except Exception as error:  # the library's exceptions have no name for all of them
        raise FolderError(f"onnxruntime {version} cannot run translation.onnx: {error}") from error
    return config, tokenizer, graph


def comparable(version: str) -> list[int]:
    """The two numbers with which a version begins."""
    return [int(number) for number in version.split(".")[:2]]


def fail(message: str, code: int) -> int:
    """Say what is wrong, where somebody listens; the exit code."""
    if sys.stderr is not None:
        print(f"translate.py: {message}", file=sys.stderr)
    return code


folder = Path(__file__).parent
try:
    config, tokenizer, graph = open_folder(folder)
except FolderError as error:
    sys.exit(fail(str(error), 2))
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


if __name__ == "__main__":
    sys.exit(main())
