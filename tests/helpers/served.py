"""A tiny model with random weights, and servers of it. Shared by the tests of serving."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.design.architecture import Architecture, DecoderLayer, EncoderLayer
from automoe.inference.model_folder import save_model
from automoe.model.transformer import Transformer

# Mixture layers with different sizes, with an identity expert and with two experts a token; a dense one.
ARCHITECTURE = Architecture(
    encoder_width=32,
    decoder_width=24,
    qkv_dim=32,
    encoder=(EncoderLayer(4, (96, 32, 0)), EncoderLayer(2, (64,)), EncoderLayer(2, (48, 16, 32), top_k=2)),
    decoder=(DecoderLayer(4, 4, (64, 16)), DecoderLayer(2, 2, (32, 64, 8), encoder_layers_attended=2)),
)
TEXTS = (
    "the cat sat on the mat",
    "a dog ran after the cat and the bird",
    "<b>bold</b> words are read as they are written",
    "every bird sings in the morning sun",
)


def tiny_model(seed: int = 3) -> tuple[Transformer, Tokenizer]:
    """Untrained: what it says means nothing, but it always says the same."""
    tokenizer = train_tokenizer(TEXTS, 60, "bpe")
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size)
    model.initialise(seed)
    return model.eval(), tokenizer


def write_tiny_model(folder: Path) -> Path:
    """The tiny model's folder."""
    save_model(folder, *tiny_model(), {})
    return folder


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The application on a real socket, served by a thread; its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", backlog=2048))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=60)
    assert not thread.is_alive()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`automoe serve` in a process of its own: its address, once it listens, and the process."""
    command = [sys.executable, "-m", "automoe", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1], process
        finally:
            process.kill()


def wait_until(condition, seconds: float = 30) -> None:
    """Return when the condition holds; fail when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class GatedEngine:
    """An engine that translates nothing until its gate is opened, and remembers what it translated."""

    def __init__(self, engine) -> None:
        self._engine = engine
        self.gate = threading.Event()
        self.encoded: list[Sequence[int]] = []

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    def search(self, source_BS, settings):
        assert self.gate.wait(timeout=60)
        self.encoded += source_BS.tolist()
        return self._engine.search(source_BS, settings)
