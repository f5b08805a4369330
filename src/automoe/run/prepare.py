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
from automoe.run.recipe import SPLITS
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
    rest = {name: value for name, value in run.recipe.plain("data")["data"].items() if name not in SPLITS}
    inputs = [rest, {split: corpus_digest(getattr(data, split)) for split in SPLITS}]

    def work(folder: Path) -> None:
        train_pairs, read = load_pairs(data.train, data.limits)
        reports = {"train": read}
        texts = (text for pair in train_pairs for text in (pair.source, pair.target))
        tokenizer = train_tokenizer(texts, data.vocabulary.size, data.vocabulary.kind)
        tokenizer.save(folder / "tokenizer.json")
        valid_pairs, reports["valid"] = load_pairs(data.valid, data.limits)
        # The test set is read again much later; what is wrong with it should be known now.
        reports["test"] = load_pairs(data.test, data.limits)[1]
        for split, pairs in (("train", train_pairs), ("valid", valid_pairs)):
            corpus = TokenisedCorpus.build(pairs, tokenizer, data.max_tokens)
            corpus.save(folder / split)
            reports[split] = dataclasses.replace(
                reports[split], kept=len(corpus), too_many_tokens=len(pairs) - len(corpus)
            )
        for split, report in reports.items():
            run.reporter.say(f"prepare: {split}: {report}")
        write_json(
            folder / "report.json", {split: dataclasses.asdict(report) for split, report in reports.items()}
        )

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
