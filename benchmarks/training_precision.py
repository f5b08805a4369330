"""Time of a training step on a CPU in float32 and with bfloat16 products, in turns.

    python benchmarks/training_precision.py [--rounds 20] [--threads 1] [--target-tokens 900]

The evidence recipe's deep and shallow dense models and its Switch Transformer; sentences of 30 + 30 random
tokens, vocabulary 4,000; forward, backward, gradient clipping and Muon. Prints the ratio of the median times,
and that of float32 with itself as a control. A processor without AVX512-BF16 or AMX has no such products.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from lightning.fabric import Fabric
from sandwich_step import VOCABULARY_SIZE, random_batch

from automoe.design.architecture import Architecture
from automoe.design.architecture_file import load_architecture
from automoe.design.space import load_space
from automoe.model.sharing import Supernet
from automoe.training.muon import BlockMuon
from automoe.training.rules import Members
from automoe.training.settings import TrainingSettings
from automoe.training.step import step_gradients

RECIPES = Path(__file__).parent.parent / "recipes"
WARMUP_ROUNDS = 2  # the first ones allocate memory and moments
FLOAT32 = TrainingSettings(steps=1, peak_rate=1e-3, warmup_steps=0, device="cpu")
BFLOAT16 = replace(FLOAT32, precision="bf16-mixed")


def models() -> dict[str, Architecture]:
    """What the recipe compares, from small to large."""
    designs = RECIPES / "architectures"
    deep = load_architecture(designs / "deep-192.yaml")
    uniform = load_space(RECIPES / "spaces" / "small-cpu.yaml").uniform(deep)
    return {
        "shallow": load_architecture(designs / "shallow-192-ffn-768.yaml"),
        "deep": deep,
        "switch": uniform,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target-tokens", type=int, default=900)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(1)
    for name, architecture in models().items():
        single = Supernet(architecture, VOCABULARY_SIZE, dropout=0.0)
        optimizer = BlockMuon(single.network, betas=(0.9, 0.98), eps=1e-9)
        ways = {"float32": FLOAT32, "bfloat16": BFLOAT16, "float32 again": FLOAT32}
        fabrics = {
            way: Fabric(accelerator="cpu", devices=1, precision=settings.precision)
            for way, settings in ways.items()
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for index in range(arguments.rounds + WARMUP_ROUNDS):
            batch = random_batch(arguments.target_tokens, generator)
            for way in list(ways)[:: 1 if index % 2 else -1]:
                start = time.perf_counter()
                members = Members((architecture,))
                gradients = step_gradients(fabrics[way], single, members, [batch], ways[way], step=1)
                torch.nn.utils.clip_grad_norm_(gradients.blocks.parameters(), ways[way].clip_norm)
                optimizer.step(gradients.blocks, ways[way].peak_rate)
                seconds[way].append(time.perf_counter() - start)
        float32, bfloat16, again = (statistics.median(times[WARMUP_ROUNDS:]) for times in seconds.values())
        print(
            f"{name}: float32 {1000 * float32:.0f} ms a step, bfloat16 {1000 * bfloat16:.0f} ms: "
            f"{float32 / bfloat16:.2f}x as fast (float32 again {float32 / again:.2f}x; "
            f"{arguments.rounds} rounds, {arguments.threads} threads)"
        )


if __name__ == "__main__":
    main()
