"""The first stage of a run: the vocabulary, and the corpora as token ids; and the shortlist they teach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from automoe.data.batching import TokenisedCorpus
from automoe.data.corpus import load_pairs
from automoe.data.shortlist import Shortlist
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.inference.model_folder import SHORTLIST
from automoe.processes import is_first_process, wait_for_all
from automoe.run.context import Run
from automoe.run.corpora import corpus_values, load_reports
from automoe.run.folder import Stage
from automoe.storage import write_json


@dataclass(frozen=True)
class Prepared:
    """What every later stage starts from."""

    stage: Stage
    tokenizer: Tokenizer
    train: TokenisedCorpus
    valid: TokenisedCorpus


def prepare(run: Run) -> Prepared:
    """Train the joint vocabulary on the training text and store the corpora as token ids.

    The test set is no part of it: it decides nothing before the evaluation.
    """
    data = run.recipe.data
    inputs = corpus_values(run, "train", "valid")
    inputs |= run.chosen("data.vocabulary.size", "data.vocabulary.kind", "data.max_tokens")

    def work(folder: Path) -> None:
        train_pairs, train_report = load_pairs(data.train, data.limits)
        texts = (text for pair in train_pairs for text in (pair.source, pair.target))
        tokenizer = train_tokenizer(texts, data.vocabulary.size, data.vocabulary.kind)
        tokenizer.save(folder / "tokenizer.json")
        valid_pairs, valid_report = load_pairs(data.valid, data.limits)
        told = {}
        for split, pairs, report in (
            ("train", train_pairs, train_report),
            ("valid", valid_pairs, valid_report),
        ):
            corpus = TokenisedCorpus.build(pairs, tokenizer, data.max_tokens)
            corpus.save(folder / split)
            told[split] = {"too_many_tokens": len(pairs) - len(corpus), "unused_columns": report.unused}
        write_json(folder / "report.json", told)
        for split, report in load_reports(run, folder).items():
            run.reporter.say(f"prepare: {split}: {report}")

    stage = run.folder.stage("prepare", inputs, work)
    return Prepared(
        stage,
        Tokenizer.load(stage.folder / "tokenizer.json"),
        TokenisedCorpus.load(stage.folder / "train"),
        TokenisedCorpus.load(stage.folder / "valid"),
    )


def add_shortlists(run: Run, prepared: Prepared, trained: Mapping[str, Stage]) -> None:
    """Put the shortlist that the training corpus teaches beside every trained model that has none.

    It decides nothing of a training, so it is no part of any stage: a run that finished without one gets it,
    too. Learned once, it is kept with the corpora.
    """
    missing = [
        folder for stage in trained.values() if not (folder := stage.folder / "model" / SHORTLIST).exists()
    ]
    wait_for_all()  # nobody writes before all have looked
    if missing and is_first_process():
        kept, size = prepared.stage.folder / SHORTLIST, prepared.tokenizer.vocabulary_size
        if not kept.exists():
            run.reporter.say("shortlist: learning which words become which")
            Shortlist.learn(prepared.train, size).save(kept)
        shortlist = Shortlist.load(kept, size)
        for path in missing:
            shortlist.save(path)
    wait_for_all()
