"""Time of a sandwich step on the demo's space against single steps of its members, in turns.

    python benchmarks/sandwich_step.py [--rounds 12] [--threads 2] [--target-tokens 900]

Sentences of 30 + 30 random tokens, vocabulary 4,000, float32: each round draws the members of one step and
makes one update with all of them, the largest teaching the others, and one update with each of them alone;
forward, backward, gradient clipping and fused Adam. Prints the ratio of the summed times; the goal is at most
1.15.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from lightning.fabric import Fabric

from automoe.data.batching import Batch
from automoe.data.vocabulary import BOS_ID, EOS_ID
from automoe.design.space import load_space
from automoe.model.sharing import Supernet
from automoe.training.optimizer import BlockAdam
from automoe.training.rules import Members, sandwich
from automoe.training.settings import TrainingSettings
from automoe.training.step import step_gradients

SPACE = Path(__file__).parent.parent / "recipes" / "spaces" / "demo.yaml"
VOCABULARY_SIZE, LENGTH = 4000, 30
WARMUP_ROUNDS = 2  # the first ones allocate memory and Adam's moments


def random_batch(target_tokens: int, generator: torch.Generator) -> Batch:
    """Full sentences: nothing is padded."""
    sentences = max(1, target_tokens // LENGTH)
    source_BS, target_BT = torch.randint(4, VOCABULARY_SIZE, (2, sentences, LENGTH), generator=generator)
    source_BS[:, -1] = EOS_ID
    target_out_BT = target_BT.clone()
    target_out_BT[:, -1] = EOS_ID
    target_in_BT = torch.cat([torch.full((sentences, 1), BOS_ID), target_BT[:, :-1]], dim=1)
    return Batch(source_BS, target_in_BT, target_out_BT, sentences * LENGTH, sentences * LENGTH)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--target-tokens", type=int, default=900)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    space, generator = load_space(SPACE), torch.Generator().manual_seed(1)
    supernet = Supernet(space.largest(), VOCABULARY_SIZE, dropout=0.1)
    optimizer = BlockAdam(supernet.network, betas=(0.9, 0.98), eps=1e-9)
    fabric = Fabric(accelerator="cpu", devices=1)
    settings = TrainingSettings(steps=1, peak_rate=1e-4, warmup_steps=0, device="cpu")
    rule = sandwich(space)

    def seconds(updates: Iterable[Members], batch: Batch) -> float:
        start = time.perf_counter()
        for members in updates:
            gradients = step_gradients(fabric, supernet, members, [batch], settings, step=1)
            torch.nn.utils.clip_grad_norm_(gradients.blocks.parameters(), settings.clip_norm)
            optimizer.step(gradients.blocks, settings.peak_rate)
        return time.perf_counter() - start

    together: list[float] = []
    alone: list[float] = []
    for index in range(arguments.rounds + WARMUP_ROUNDS):
        batch = random_batch(arguments.target_tokens, generator)
        members = rule(index, random.Random(index))
        turns = [
            (together, [members]),
            (alone, [Members((architecture,)) for architecture in members.architectures]),
        ]
        for times, updates in turns if index % 2 else turns[::-1]:
            times.append(seconds(updates, batch))
    together_s, alone_s = (sum(times[WARMUP_ROUNDS:]) / arguments.rounds for times in (together, alone))
    ratio = together_s / alone_s
    print(
        f"sandwich step: {together_s:.3f} s, its members' single steps {alone_s:.3f} s: {ratio:.2f}x "
        f"(goal at most 1.15x; {arguments.rounds} rounds, {arguments.threads} threads)"
    )


if __name__ == "__main__":
    main()
