"""Speed of scoring search candidates: 500 sub-networks of the demo's space on 300 validation sentences.

    python benchmarks/evaluate_candidates.py [--candidates 500] [--sentences 300] [--threads 2]

The weights are random (the time does not depend on them); latency measurements are not included.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch

from automoe.data.batching import TokenisedCorpus, fixed_batches
from automoe.data.corpus import load_pairs
from automoe.data.tokenizer import train_tokenizer
from automoe.model.sharing import Supernet
from automoe.run.recipe import load_recipe
from automoe.training.objective import validation_loss

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.yaml"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--sentences", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    loaded = load_recipe(RECIPE)
    data = loaded.recipe.data
    pairs = load_pairs(data.valid, data.limits)[0]
    texts = [text for pair in load_pairs(data.train, data.limits)[0] for text in (pair.source, pair.target)]
    tokenizer = train_tokenizer(texts, data.vocabulary.size, data.vocabulary.kind)
    corpus = TokenisedCorpus.build(pairs[: arguments.sentences], tokenizer, data.max_tokens)
    batches = fixed_batches(corpus, loaded.recipe.supernet.batch_tokens)
    supernet = Supernet(loaded.space.largest(), tokenizer.vocabulary_size, norm="pre")
    rng = random.Random(1)
    start = time.perf_counter()
    for _ in range(arguments.candidates):
        validation_loss(supernet.subnetwork(loaded.space.sample(rng)), batches)
    seconds = time.perf_counter() - start
    print(f"{arguments.candidates} candidates on {len(corpus)} sentences: {seconds:.1f} s")


if __name__ == "__main__":
    main()
