"""How well the demo's dense model learns in a given time: for choosing batch size and vocabulary.

    python benchmarks/learning.py [--seconds 90] [--threads 2]

Trains the largest dense member of the demo's space for equal wall-clock times, by the clock and not by steps,
with the demo's other settings, and prints greedy BLEU on the first 500 validation sentences and the
validation loss in nats a character (comparable across vocabularies).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from automoe.data.batching import BatchStream, TokenisedCorpus, fixed_batches
from automoe.data.corpus import load_pairs
from automoe.data.tokenizer import train_tokenizer
from automoe.evaluation.scores import evaluate_model
from automoe.inference.beam_settings import BeamSettings
from automoe.model.sharing import Supernet
from automoe.run.recipe import load_recipe
from automoe.training.objective import objective, validation_nll
from automoe.training.schedule import learning_rate

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.yaml"
SETTINGS = ((4000, 225), (4000, 450), (4000, 900), (4000, 2500), (8000, 450))  # vocabulary, batch tokens


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    loaded = load_recipe(RECIPE)
    data, training = loaded.recipe.data, loaded.recipe.training
    train_pairs, valid_pairs = (load_pairs(source, data.limits)[0] for source in (data.train, data.valid))
    valid_pairs = valid_pairs[:500]
    texts = [text for pair in train_pairs for text in (pair.source, pair.target)]
    for vocabulary_size, batch_tokens in SETTINGS:
        tokenizer = train_tokenizer(texts, vocabulary_size, data.vocabulary.kind)
        stream = BatchStream(
            TokenisedCorpus.build(train_pairs, tokenizer, data.max_tokens), batch_tokens, seed=1
        )
        model = Supernet(loaded.space.largest_dense(), vocabulary_size, norm=loaded.recipe.model.norm).network
        optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9, fused=True)
        start, step, tokens = time.perf_counter(), 0, 0
        while (share := (time.perf_counter() - start) / arguments.seconds) < 1:
            step += 1
            # The schedule follows the clock: a step counts as the share of the time that has passed.
            rate = learning_rate(
                max(1, int(share * 1000)),
                steps=1000,
                warmup_steps=70,
                peak_rate=training.peak_rate,
                final_rate_ratio=training.final_rate_ratio,
            )
            optimizer.param_groups[0]["lr"] = rate
            loss = objective(model, next(stream), label_smoothing=training.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            (loss.loss / loss.tokens).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            tokens += loss.tokens
        speed = tokens / (time.perf_counter() - start)
        valid = TokenisedCorpus.build(valid_pairs, tokenizer, max_tokens=10**6)
        nll = validation_nll(model, fixed_batches(valid, 4000))[0] / sum(len(p.target) for p in valid_pairs)
        greedy = BeamSettings(beam_size=1)
        bleu = evaluate_model(model, tokenizer, valid_pairs, data.target_language, greedy).scores.bleu
        print(
            f"vocabulary {vocabulary_size}, batches of {batch_tokens:4} target tokens: BLEU {bleu:5.2f}, "
            f"{nll:.3f} nats a character, {step} steps, {speed:.0f} target tokens/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
