"""What a lexical shortlist changes: translations and BLEU of the shipped test set, by its size; no times.

    python benchmarks/shortlist.py [MODEL]      a model folder; by default the demo's winner

Sentences are translated one by one: in a batch each would have the others' tokens as well. A model folder of
an earlier version has no shortlist; then it is learned from the demo's training corpus.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from automoe.data.batching import TokenisedCorpus
from automoe.data.corpus import load_pairs
from automoe.data.shortlist import Shortlist, Shortlister
from automoe.data.vocabulary import EOS_ID
from automoe.evaluation.scores import evaluate_translations
from automoe.inference.backends import Precision, engine_of
from automoe.inference.model_folder import StoredModel, read_model
from automoe.inference.translator import Translator, pad_right
from automoe.run.recipe import Data, load_recipe

ROOT = Path(__file__).parent.parent
SIZES = (500, 1000, 1500, 2000)
TOGETHER = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "model", nargs="?", default=ROOT / "runs" / "demo" / "seed-1" / "train-automoe" / "model"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--precisions", nargs="+", default=("float32", "int8"))
    arguments = parser.parse_args()
    if not Path(arguments.model).is_dir():
        print(f"no model at {arguments.model}: run `make demo` first, or name another")
        return
    data = load_recipe(ROOT / "recipes" / "demo.yaml").recipe.data
    model = read_model(arguments.model)
    shortlist = model.shortlist or learned(model, data)
    pairs = load_pairs(data.test, data.limits)[0]
    sources = [[*tokens, EOS_ID] for tokens in model.tokenizer.encode([pair.source for pair in pairs])]
    references = [pair.target for pair in pairs]
    print(f"vocabulary {model.vocabulary_size:,}, {len(pairs):,} sentences")
    for precision in arguments.precisions:
        whole = translated(model, sources, precision, None)
        bleu = evaluate_translations(whole, references, data.target_language).bleu
        print(f"{precision:8} whole vocabulary        BLEU {bleu:6.2f}", flush=True)
        for size in arguments.sizes:
            found = translated(model, sources, precision, shortlist.sized(size))
            changed = sum(mine != theirs for mine, theirs in zip(found, whole, strict=True)) / len(pairs)
            bleu = evaluate_translations(found, references, data.target_language).bleu
            print(
                f"{precision:8} shortlist of {size:5,} tokens BLEU {bleu:6.2f}, {changed:6.2%} changed; "
                f"{TOGETHER} sentences together have {tokens_together(shortlist, sources, size):,.0f} tokens",
                flush=True,
            )


def learned(model: StoredModel, data: Data) -> Shortlist:
    """The shortlist of the recipe's training corpus, in the model's tokens."""
    pairs = load_pairs(data.train, data.limits)[0]
    corpus = TokenisedCorpus.build(pairs, model.tokenizer, data.max_tokens)
    return Shortlist.learn(corpus, model.vocabulary_size)


def translated(
    model: StoredModel, sources: list[list[int]], precision: Precision, shortlister: Shortlister | None
) -> list[str]:
    """The best translation of each source, each by itself."""
    engine = engine_of(model, "onnx", precision, shortlister=shortlister)
    translator = Translator(engine, model.tokenizer)
    found = translator.search(sources, batch_tokens=1)
    return model.tokenizer.decode([hypotheses[0].tokens for hypotheses in found])


def tokens_together(shortlist: Shortlist, sources: list[list[int]], size: int) -> float:
    """How many tokens a batch of neighbours has, on average."""
    batches = [sources[start : start + TOGETHER] for start in range(0, len(sources), TOGETHER)]
    return float(np.mean([len(shortlist.of(pad_right(batch), size)) for batch in batches]))


if __name__ == "__main__":
    main()
