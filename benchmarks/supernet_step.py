"""Speed and memory of a supernet step on the paper's space (M = 6, fractional experts).

    python benchmarks/supernet_step.py [--steps 12] [--threads 2]

32 sentences of 30 + 30 random tokens, vocabulary 32,768, float32: a random sub-network each step, forward,
backward, gradient clipping and fused Adam. Prints target tokens/s, the process's peak memory, and the rate of
a dense 2048 x 2048 matrix product in the same run, so that machines can be compared.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from pathlib import Path

import torch

from automoe.data.batching import Batch
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.space import load_space
from automoe.model.sharing import Supernet
from automoe.training.objective import objective
from automoe.training.optimizer import BlockAdam

SPACE = Path(__file__).parent.parent / "recipes" / "spaces" / "paper-6-fractional.yaml"
VOCABULARY_SIZE, SENTENCES, LENGTH = 32768, 32, 30


def matrix_product_gflops() -> float:
    """GFLOP/s of a 2048 x 2048 x 2048 float32 product, the best of five rounds of ten."""
    a, b = torch.randn(2, 2048, 2048)
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(10):
            a @ b
        rates.append(10 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    return max(rates)


def random_batch(generator: torch.Generator) -> Batch:
    """Full sentences: nothing is padded."""
    source_BS, target_BT = torch.randint(4, VOCABULARY_SIZE, (2, SENTENCES, LENGTH), generator=generator)
    source_BS[:, -1] = EOS_ID
    target_out_BT = target_BT.clone()
    target_out_BT[:, -1] = EOS_ID
    target_in_BT = torch.cat([torch.full((SENTENCES, 1), BOS_ID), target_BT[:, :-1]], dim=1)
    return Batch(source_BS, target_in_BT, target_out_BT, SENTENCES * LENGTH, SENTENCES * LENGTH)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    space, rng, generator = load_space(SPACE), random.Random(1), torch.Generator().manual_seed(1)
    supernet = Supernet(space.largest(), VOCABULARY_SIZE, dropout=0.1)
    optimizer = BlockAdam(supernet.network, betas=(0.9, 0.98), eps=1e-9)
    seconds = []
    for step in range(arguments.steps + 2):
        batch = random_batch(generator)
        start = time.perf_counter()
        network = supernet.subnetwork(space.sample(rng))
        result = objective(network, batch, balance_coefficient=0.01)
        (result.loss / result.tokens).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm=1.0)
        optimizer.step(network, rate=1e-4)
        if step >= 2:  # the first steps allocate memory and Adam's moments
            seconds.append(time.perf_counter() - start)
    tokens_per_second = SENTENCES * LENGTH * len(seconds) / sum(seconds)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    rate = matrix_product_gflops()
    print(f"supernet step: {tokens_per_second:.0f} target tokens/s, peak memory {peak_gb:.2f} GB")
    print(f"matrix product: {rate:.0f} GFLOP/s with {arguments.threads} threads")
    print(f"ratio: {tokens_per_second / rate:.2f} target tokens/s per GFLOP/s")


if __name__ == "__main__":
    main()
