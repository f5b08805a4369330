"""The first stage of a run: the vocabulary, and the corpora as token ids."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automoe.data.batching import TokenisedCorpus
from automoe.data.corpus import CorpusSource, load_pairs
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.run.context import Run
from automoe.run.folder import Stage
from automoe.storage import file_digest, write_json


@dataclass(frozen=True)
class Prepared:
    """What every later stage starts from."""

    stage: Stage
    tokenizer: Tokenizer
    train: TokenisedCorpus
    valid: TokenisedCorpus


def prepare(run: Run) -> Prepared:
    """Train the joint vocabulary on the training text and store the corpora as token ids."""
    data = run.recipe.data
    splits = ("train", "valid", "test")
    rest = {name: value for name, value in run.recipe.plain("data")["data"].items() if name not in splits}
    inputs = [rest, {split: corpus_digest(getattr(data, split)) for split in splits}]

    def work(folder: Path) -> None:
        report: dict[str, Any] = {}
        train_pairs, loaded = load_pairs(data.train, data.limits)
        report["train"] = dataclasses.asdict(loaded)
        texts = (text for pair in train_pairs for text in (pair.source, pair.target))
        tokenizer = train_tokenizer(texts, data.vocabulary.size, data.vocabulary.kind)
        tokenizer.save(folder / "tokenizer.json")
        valid_pairs, loaded = load_pairs(data.valid, data.limits)
        report["valid"] = dataclasses.asdict(loaded)
        # The test set is read again much later; what is wrong with it should be known now.
        report["test"] = dataclasses.asdict(load_pairs(data.test, data.limits)[1])
        for split, pairs in (("train", train_pairs), ("valid", valid_pairs)):
            corpus = TokenisedCorpus.build(pairs, tokenizer, data.max_tokens)
            corpus.save(folder / split)
            report[split]["pairs_with_tokens_in_range"] = len(corpus)
        write_json(folder / "report.json", report)

    stage = run.folder.stage("prepare", inputs, work)
    return Prepared(
        stage,
        Tokenizer.load(stage.folder / "tokenizer.json"),
        TokenisedCorpus.load(stage.folder / "train"),
        TokenisedCorpus.load(stage.folder / "valid"),
    )


def corpus_digest(source: CorpusSource) -> dict[str, Any]:
    """What identifies a corpus: its description, and the content of its files."""
    plain: dict[str, Any] = dataclasses.asdict(source)
    for key in ("path", "source_path", "target_path"):
        if plain.get(key):
            plain[key] = file_digest(Path(plain[key]))
    return plain
