"""How fast the engines decode, side by side with CTranslate2 and with the memory's speed.

    pip install 'automoe[bench]'
    python benchmarks/inference_speed.py [--runs 20] [--threads 2] [--only small mixture base ...]

The papers' protocol: sentences of 30 random tokens, exactly 30 decoding steps, beam 5, vocabulary 32,768,
random weights, 2 threads; `small` and `mixture` are of the size of the shipped recipes' models, with their
vocabulary of 4,000. Every engine of an architecture is timed in turns, so that the machine's drift hits all
alike; printed are medians, ratios to CTranslate2's and to the limit: the time to read every weight of a step
once (of the active experts of five tokens, routed uniformly), 30 times, plus the encoder's once; and, for
small models, plus what the same graph takes with next to no weights, which is the time of its operators.

CTranslate2 has no mixtures of experts: the AutoMoE architecture takes turns with its Transformer-Big.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.specs import TransformerSpec

from automoe.cost.measure import random_engine, random_source
from automoe.cost.protocol import MeasuringProtocol
from automoe.design.architecture import Architecture, dense
from automoe.design.architecture_file import load_architecture
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.engine import Engine, Ids
from automoe.inference.graph_model import ModelGraph
from automoe.inference.translation_graph import translation_graph
from automoe.model.transformer import Transformer

LENGTH, BEAMS = 30, 5
VOCABULARY = {"small": 4000, "mixture": 4000}  # of the others, 32,768
AUTOMOE = Path(__file__).parent.parent / "recipes" / "architectures" / "automoe-wmt14-en-de.yaml"
BYTES = {"float32": 4, "float16": 2, "int8": 1}
BASE, BIG = dense(512, 2048, 8, 6, 6), dense(1024, 4096, 16, 6, 6)
SMALL = dense(192, 768, 4, 2, 2)
MIXTURE = replace(
    SMALL,
    encoder=tuple(replace(layer, experts=(512, 128)) for layer in SMALL.encoder),
    decoder=tuple(replace(layer, experts=(512, 128, 256)) for layer in SMALL.decoder),
)
ENGINES = ("onnx float32", "onnx int8", "torch float16", "torch float32")
SUBJECTS = {  # name: architecture, CTranslate2's, sentences a batch, our engines
    "small": (SMALL, SMALL, 1, ENGINES[:2]),
    "mixture": (MIXTURE, SMALL, 1, ENGINES[:2]),
    "base": (BASE, BASE, 1, ENGINES),
    "automoe": (load_architecture(AUTOMOE), BIG, 1, ENGINES),
    "eight": (BASE, BASE, 8, ENGINES[:2]),
    "batch": (BASE, BASE, 64, ENGINES[:2]),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bandwidth = memory_bandwidth_gb_s()
    print(f"{arguments.threads} threads, memory read at {bandwidth:.1f} GB/s", flush=True)
    for name in arguments.only:
        architecture, rivals, batch, wanted = SUBJECTS[name]
        runs = max(3, arguments.runs // (10 if batch > 8 else 1))
        vocabulary_size = VOCABULARY.get(name, 32768)
        times = compare(architecture, rivals, batch, wanted, runs, vocabulary_size)
        print(f"\n{name}: {architecture}, {batch} sentence(s); CTranslate2: {rivals}")
        operators_ms: dict[str, float] = {}
        if name in VOCABULARY:
            for precision in ("float32", "int8"):
                operators_ms[precision] = operators_time_ms(architecture, precision)
            told = ", ".join(f"{precision} {ms:.1f} ms" for precision, ms in operators_ms.items())
            print(f"  {step_operators(architecture)} operators a step; alone: {told}")
        for engine, seconds in times.items():
            backend, precision = engine.split()
            weights = active_weights(rivals if backend == "ctranslate2" else architecture, vocabulary_size)
            limit = 1000 * weights * BYTES[precision] / bandwidth / 1e9 + operators_ms.get(precision, 0.0)
            rival = times.get(f"ctranslate2 {precision}")
            print(
                f"  {engine:20} {1000 * seconds:8.1f} ms  {batch * LENGTH / seconds:7.0f} target tokens/s"
                + (f"  {1000 * seconds / limit:5.2f} x limit {limit:.0f} ms" if batch == 1 else "")
                + (f"  {rival / seconds:5.2f} x CTranslate2's speed ({precision})" if rival else ""),
                flush=True,
            )


def compare(
    architecture: Architecture,
    rivals: Architecture,
    batch: int,
    wanted: Sequence[str],
    runs: int,
    vocabulary_size: int,
) -> dict[str, float]:
    """Median seconds a batch, by engine; every engine once a turn, CTranslate2 with the rivals' (dense)."""
    timed: dict[str, Callable[[Ids], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        dense_spec(rivals, vocabulary_size).save(folder)
        for precision in ("float32", "int8"):
            timed[f"ctranslate2 {precision}"] = ctranslate2_run(folder, precision)
    for name in wanted:
        backend, precision = name.split()
        timed[name] = engine_run(
            random_engine(
                architecture,
                MeasuringProtocol(
                    backend=backend,
                    precision=precision,
                    threads=torch.get_num_threads(),
                    vocabulary_size=vocabulary_size,
                ),
            )
        )
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    rng = np.random.default_rng(0)
    for turn in range(1 + runs):
        source_BS = random_source(batch, LENGTH, vocabulary_size, rng)
        for name, run in timed.items():
            if name == "torch float32" and turn > max(3, runs // 5):
                continue
            start = time.perf_counter()
            run(source_BS)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def engine_run(engine: Engine) -> Callable[[Ids], object]:
    """Encode and decode one batch."""
    settings = BeamSettings.exactly(LENGTH, BEAMS)

    def run(source_BS: Ids) -> object:
        return engine.search(source_BS, settings)

    return run


def ctranslate2_run(folder: str, precision: str) -> Callable[[Ids], object]:
    """The same by CTranslate2."""
    translator = ctranslate2.Translator(
        folder, compute_type=precision, inter_threads=1, intra_threads=torch.get_num_threads()
    )

    def run(source_BS: Ids) -> object:
        tokens = [[str(token) for token in row] for row in source_BS.tolist()]
        found = translator.translate_batch(
            tokens,
            beam_size=BEAMS,
            min_decoding_length=LENGTH - 1,
            max_decoding_length=LENGTH - 1,
            max_batch_size=0,
        )
        assert all(len(result.hypotheses[0]) == LENGTH - 1 for result in found)
        return found

    return run


def dense_spec(architecture: Architecture, vocabulary_size: int) -> TransformerSpec:
    """A random dense Transformer of this architecture for CTranslate2, post-norm."""
    encoder, decoder = architecture.encoder, architecture.decoder
    spec = TransformerSpec.from_config(
        (len(encoder), len(decoder)), encoder[0].self_attention_heads, pre_norm=False
    )
    rng = np.random.default_rng(0)
    width = architecture.encoder_width

    def matrix(rows: int, columns: int) -> Any:
        return (rng.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)

    def linear(target: Any, rows: int, columns: int) -> None:
        target.weight, target.bias = matrix(rows, columns), np.zeros(rows, dtype=np.float32)

    def norm(target: Any) -> None:
        target.gamma, target.beta = np.ones(width, dtype=np.float32), np.zeros(width, dtype=np.float32)

    embedding = matrix(vocabulary_size, width)
    spec.encoder.embeddings[0].weight = embedding
    spec.decoder.embeddings.weight = embedding
    spec.decoder.projection.weight = embedding
    for target, layer in [
        *zip(spec.encoder.layer, encoder, strict=True),
        *zip(spec.decoder.layer, decoder, strict=True),
    ]:
        linear(target.self_attention.linear[0], 3 * width, width)
        linear(target.self_attention.linear[1], width, width)
        norm(target.self_attention.layer_norm)
        if hasattr(target, "attention"):
            linear(target.attention.linear[0], width, width)
            linear(target.attention.linear[1], 2 * width, width)
            linear(target.attention.linear[2], width, width)
            norm(target.attention.layer_norm)
        linear(target.ffn.linear_0, layer.ffn_sizes[0], width)
        linear(target.ffn.linear_1, width, layer.ffn_sizes[0])
        norm(target.ffn.layer_norm)
    vocabulary = [str(token) for token in range(vocabulary_size)]
    vocabulary[:4] = ["<pad>", "<s>", "</s>", "<unk>"]
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.config.add_source_eos = True
    spec.validate()
    return spec


def active_weights(architecture: Architecture, vocabulary_size: int) -> float:
    """Weights read for one sentence: the encoder's once, the decoder's and the output layer's each step."""
    model = Transformer(architecture, 8)

    def stack(blocks: Any, layers: Any, tokens: int) -> float:
        total = 0.0
        for block, layer in zip(blocks, layers, strict=True):
            experts = sum(p.numel() for p in block.ffn.mixture.experts.parameters())
            others = sum(p.numel() for p in block.parameters()) - experts
            # Of E experts, a batch of tokens wakes E (1 - (1 - 1/E)^tokens).
            E = len(layer.experts)
            total += others + experts * (1 - (1 - layer.top_k / E) ** tokens)
        return total

    output = vocabulary_size * architecture.decoder_width
    step = stack(model.decoder, architecture.decoder, BEAMS) + output
    return stack(model.encoder, architecture.encoder, LENGTH) + LENGTH * step


def operators_time_ms(architecture: Architecture, precision: str) -> float:
    """A translation by the same graph with next to no weights: widths of 4, FFNs of 4, 16 tokens."""
    tiny = tiny_of(architecture)
    protocol = MeasuringProtocol(
        backend="onnx", precision=precision, threads=torch.get_num_threads(), vocabulary_size=16
    )
    run = engine_run(random_engine(tiny, protocol))
    rng = np.random.default_rng(0)
    times = []
    for _ in range(50):
        source_BS = random_source(1, LENGTH, 16, rng)
        start = time.perf_counter()
        run(source_BS)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def step_operators(architecture: Architecture) -> int:
    """The nodes of the loop that takes the steps."""
    model = Transformer(tiny_of(architecture), 16)
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    graph = translation_graph(ModelGraph(model.architecture, "post", weights)).graph
    for _ in ("phases", "steps"):
        (loop,) = [node for node in graph.node if node.op_type == "Loop"]
        (graph,) = [attribute.g for attribute in loop.attribute if attribute.name == "body"]
    return len(graph.node)


def tiny_of(architecture: Architecture) -> Architecture:
    """As many layers and experts, next to no weights."""

    def tiny(layer: Any) -> Any:
        heads = {
            name: 1 for name in ("self_attention_heads", "cross_attention_heads") if hasattr(layer, name)
        }
        return replace(layer, experts=(4,) * len(layer.experts), **heads)

    encoder, decoder = (tuple(map(tiny, layers)) for layers in (architecture.encoder, architecture.decoder))
    return Architecture(4, 4, 4, encoder, decoder)


def memory_bandwidth_gb_s() -> float:
    """Of reading: the best of ten sums over 1 GB."""
    block = torch.ones(2**28)
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        block.sum()
        best = max(best, block.nbytes / (time.perf_counter() - start) / 1e9)
    return best


if __name__ == "__main__":
    main()
