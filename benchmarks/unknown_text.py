"""What text in characters that the vocabulary lacks is best made of: copied lines, or bytes.

    python benchmarks/unknown_text.py [--steps 1600] [--threads 2] [--lines 500]

Trains the largest dense member of the demo's space three times with the demo's settings: with its
vocabulary, whose unknown lines are copied (what AutoMoE does); with 256 of as many tokens being bytes; and
with 256 tokens more. Where there are bytes, they spell the rarest characters of the text (all but a share
of `COVERAGE`), so that they are learned. Prints greedy BLEU and the validation loss in nats a character on
the first validation sentences; and of made-up words in a script that the text has not, how many
translations have the word: where it stands alone, and where it takes the place of a word that both sides
share.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import tokenizers
import torch
from tokenizers import decoders

import automoe.data.tokenizer
from automoe.data.batching import BatchStream, TokenisedCorpus, fixed_batches
from automoe.data.corpus import Pair, load_pairs
from automoe.data.normaliser import WORD_START
from automoe.data.tokenizer import SPECIAL_TOKEN_SCORE, Tokenizer, train_tokenizer
from automoe.evaluation.scores import evaluate_model
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translator
from automoe.model.sharing import Supernet
from automoe.model.transformer import Transformer
from automoe.run.recipe import LoadedRecipe, load_recipe
from automoe.training.loop import train
from automoe.training.objective import validation_nll
from automoe.training.rules import only

RECIPE = Path(__file__).parent.parent / "recipes" / "demo.yaml"
BYTES = 256
COVERAGE = 0.9995  # SentencePiece's own default
GREEDY = BeamSettings(beam_size=1)
UNSEEN = "აბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰ"  # Georgian


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lines", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    loaded = load_recipe(RECIPE)
    data, size = loaded.recipe.data, loaded.recipe.data.vocabulary.size
    train_pairs, valid_pairs = (load_pairs(source, data.limits)[0] for source in (data.train, data.valid))
    valid_pairs = valid_pairs[: arguments.lines]
    alone, within = unseen_words(valid_pairs)
    texts = [text for pair in train_pairs for text in (pair.source, pair.target)]
    plain = train_tokenizer(texts, size)
    ways = {
        "copied lines": plain,
        "bytes within": with_bytes(texts, size),
        "bytes beside": with_bytes(texts, size + BYTES),
    }
    for name, tokenizer in ways.items():
        model = trained(loaded, tokenizer, train_pairs, arguments.steps)
        valid = TokenisedCorpus.build(valid_pairs, tokenizer, max_tokens=10**6)
        nll = validation_nll(model, fixed_batches(valid, 4000))[0] / sum(len(p.target) for p in valid_pairs)
        bleu = evaluate_model(model, tokenizer, valid_pairs, data.target_language, GREEDY).scores.bleu
        translator = Translator(TorchEngine(model.eval()), tokenizer, GREEDY)
        print(
            f"{name}: vocabulary {tokenizer.vocabulary_size:,}, BLEU {bleu:.2f}, {nll:.4f} nats a character, "
            f"unseen words kept: {kept(translator, alone)} alone, {kept(translator, within)} in a sentence",
            flush=True,
        )


def with_bytes(texts: Sequence[str], size: int) -> Tokenizer:
    """A vocabulary of so many tokens, 256 of which are the bytes that spell unknown characters."""
    coverage = automoe.data.tokenizer.CHARACTER_COVERAGE
    automoe.data.tokenizer.CHARACTER_COVERAGE = COVERAGE
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        train_tokenizer(texts, size - BYTES).save(path)
        plain = json.loads(path.read_text(encoding="utf-8"))
    automoe.data.tokenizer.CHARACTER_COVERAGE = coverage
    plain["model"]["vocab"] += [[f"<0x{byte:02X}>", SPECIAL_TOKEN_SCORE] for byte in range(BYTES)]
    plain["model"]["byte_fallback"] = True
    inner = tokenizers.Tokenizer.from_str(json.dumps(plain))
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement=WORD_START)])
    return Tokenizer(inner)


def trained(loaded: LoadedRecipe, tokenizer: Tokenizer, pairs: Sequence[Pair], steps: int) -> Transformer:
    """The largest dense member, trained as the recipe trains, for so many steps."""
    recipe = loaded.recipe
    settings = dataclasses.replace(
        recipe.training, steps=steps, warmup_steps=min(steps, recipe.training.warmup_steps)
    )
    corpus = TokenisedCorpus.build(pairs, tokenizer, recipe.data.max_tokens)
    member = loaded.space.largest_dense()
    network = Supernet(member, tokenizer.vocabulary_size, norm=recipe.model.norm)
    with TemporaryDirectory() as folder:
        train(
            network, only(member), BatchStream(corpus, settings.batch_tokens, seed=1), settings, Path(folder)
        )
    return network.network


def unseen_words(pairs: Sequence[Pair]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Texts and the made-up word in each: words alone, and sentences in which both sides had one word."""
    rng = random.Random(1)
    alone, within = [], []
    for pair in pairs:
        word = "".join(rng.choices(UNSEEN, k=rng.randint(4, 8)))
        alone.append((f"{word}!", word))
        shared = set(re.findall(r"[A-Za-z]{4,}", pair.source)) & set(re.findall(r"[A-Za-z]{4,}", pair.target))
        for name in itertools.islice(sorted(shared), 1):
            within.append((pair.source.replace(name, word), word))
    return alone, within


def kept(translator: Translator, texts: Sequence[tuple[str, str]]) -> str:
    """In how many translations the word of the source is."""
    found = translator.translate(text for text, _ in texts)
    return f"{sum(word in out for (_, word), out in zip(texts, found, strict=True))} of {len(texts)}"


if __name__ == "__main__":
    main()
