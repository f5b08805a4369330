"""What dynamic batching is worth under load: `automoe serve` against itself, one sentence at a time.

    python benchmarks/serve_load.py [MODEL | --base] [--clients 8] [--seconds 60] [--threads 2]
        [--backend onnx] [--precision float32]

Eight clients, each sending the next sentence of the demo's test set as soon as the last one is answered, ask
first a server that translates one request at a time, then one with the default limits. Without MODEL, random
weights of the demo's size or of Transformer-Base are served: their translations mean nothing and are as long
as is allowed. The server's peak of memory is told too, and how much of it came after the warm-up.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from automoe.data.corpus import load_pairs
from automoe.data.tokenizer import train_tokenizer
from automoe.design.architecture import Architecture, dense
from automoe.design.model_options import ModelOptions
from automoe.inference.model_folder import save_model
from automoe.model.transformer import Transformer
from automoe.run.recipe import load_recipe

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.yaml"
TARGET_RATIO = 2.0
VOCABULARY_SIZE = 3000  # of the random model: the test set has few words
SERVE = """
from pathlib import Path
from automoe.inference.beam_settings import BeamSettings
from automoe.serving.limits import ServingLimits
from automoe.serving.server import serve
engine = {backend!r}, {precision!r}, {threads}
serve(Path({folder!r}), "127.0.0.1", 0, BeamSettings(), *engine, limits=ServingLimits({limits}))
"""


def main() -> None:
    """Measure and print; exit code 1 when a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--base", action="store_true", help="random weights of Transformer-Base")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    loaded = load_recipe(RECIPE)
    pairs = load_pairs(loaded.recipe.data.test, loaded.recipe.data.limits)[0]
    sentences = [pair.source for pair in pairs]
    random.Random(0).shuffle(sentences)  # neighbours are of one document
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or _random_model(
            Path(folder),
            dense(512, 2048, 8, 6, 6) if arguments.base else loaded.space.sample(random.Random(0)),
            [text for pair in pairs for text in (pair.source, pair.target)],
        )
        print(
            f"{arguments.clients} clients for {arguments.seconds:g} s, {arguments.backend} "
            f"{arguments.precision}, {arguments.threads} threads, beam 5",
            flush=True,
        )
        rates = []
        failed = 0
        for name, limits in (("one at a time", "batch_sentences=1"), ("dynamic batches", "")):
            program = SERVE.format(
                folder=str(model),
                backend=arguments.backend,
                precision=arguments.precision,
                threads=arguments.threads,
                limits=limits,
            )
            with _server(program) as (port, pid):
                _load(port, sentences[:20], arguments.clients, seconds=3)  # warm-up
                warm_mib = _peak_mib(pid)
                latencies_s, errors = _load(port, sentences, arguments.clients, arguments.seconds)
                batch = _mean_batch(port)
                peak_mib = _peak_mib(pid)
            rates.append(len(latencies_s) / arguments.seconds)
            failed += errors
            percentiles = statistics.quantiles(latencies_s, n=100)
            median_ms, late_ms = 1000 * percentiles[49], 1000 * percentiles[94]
            print(
                f"  {name:16} {rates[-1]:7.1f} sentences/s   latency median {median_ms:6.0f} ms, "
                f"95th percentile {late_ms:6.0f} ms   batch {batch:4.1f}   {errors} errors   "
                f"memory at most {peak_mib:.0f} MiB, {peak_mib - warm_mib:+.0f} after the first 3 s",
                flush=True,
            )
    ratio = rates[1] / rates[0]
    print(f"  ratio {ratio:.2f}, target at least {TARGET_RATIO:g}")
    sys.exit(failed > 0)


def _random_model(folder: Path, architecture: Architecture, texts: Sequence[str]) -> Path:
    tokenizer = train_tokenizer(texts, VOCABULARY_SIZE)
    model = Transformer(architecture, tokenizer.vocabulary_size, ModelOptions(norm="pre"))
    model.initialise(seed=0)
    save_model(folder, model, tokenizer, {})
    return folder


@contextmanager
def _server(program: str) -> Iterator[tuple[int, int]]:
    """A server in a process of its own; its port, and the process's number."""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rsplit(":", 1)[1]), process.pid
        finally:
            process.terminate()


def _peak_mib(pid: int) -> float:
    """The most memory that a process had so far (Linux; elsewhere unknown, nan)."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.M) if status.exists() else None
    return int(found[1]) / 1024 if found else float("nan")


def _mean_batch(port: int) -> float:
    """Sentences a batch, as the server counts them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        counted = dict(
            re.findall(r"^automoe_batch_sentences_(sum|count) (\S+)", answer.read().decode(), re.M)
        )
    return float(counted["sum"]) / float(counted["count"])


def _load(port: int, sentences: Sequence[str], clients: int, seconds: float) -> tuple[list[float], int]:
    """Seconds each request took that was answered in time, and how many requests failed."""
    latencies_s: list[float] = []
    errors = 0
    position = iter(range(sys.maxsize))
    lock = threading.Lock()
    end = time.monotonic() + seconds

    def client() -> None:
        nonlocal errors
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while time.monotonic() < end:
            with lock:
                sentence = sentences[next(position) % len(sentences)]
            start = time.monotonic()
            try:
                connection.request(
                    "POST", "/translate", json.dumps({"text": sentence}), {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                body = json.load(answer)
                good = answer.status == 200 and bool(body["translations"][0]["text"])
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens it again
                good = False
            now = time.monotonic()
            with lock:
                if not good:
                    errors += 1
                elif now <= end:
                    latencies_s.append(now - start)

    with ThreadPoolExecutor(clients) as threads:
        for task in [threads.submit(client) for _ in range(clients)]:
            task.result()
    return latencies_s, errors


if __name__ == "__main__":
    main()
