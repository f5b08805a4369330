"""The stage in which a teacher translates the training sources (sequence-level distillation).

    translated.jsonl    its translations, block by block, longest sources first; what was interrupted goes on
    distilled.tsv       each different source, and its translation
    train/              what students are trained on, as token ids: original pairs, then distilled ones
    report.json         how many sentences, and how long they took

It goes by text, so a teacher may have any vocabulary. Of the corpora it reads the training set alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from automoe.data.batching import ENCODED, TokenisedCorpus, joined
from automoe.data.corpus import Pair, load_pairs
from automoe.data.tokenizer import Tokenizer
from automoe.errors import InputError
from automoe.inference.backends import load_engine
from automoe.inference.engine import Engine
from automoe.inference.ensemble import EnsembleEngine
from automoe.inference.model_folder import load_model, model_digest
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translator
from automoe.run.context import Run
from automoe.run.folder import Stage
from automoe.run.inputs import LENGTHS
from automoe.run.prepare import Prepared
from automoe.storage import append_to_journal, read_journal, write_json, write_text

BLOCK = 512
"""Sources between two records: few enough that a kill costs seconds, enough to be batched by length."""

JOURNAL = "translated.jsonl"


class LineTranslator(Protocol):
    """What a teacher is here: lines in, as many out."""

    def translate(self, lines: Iterable[str]) -> Iterator[str]:
        """The best translation of each line."""


def distil(run: Run, prepared: Prepared, teachers: Sequence[Stage]) -> Prepared:
    """Have the teacher translate the sources of the training set; what its students are trained on.

    A source that is there several times is translated once. Each pair of the training set gives a distilled
    one, unless its source, or what the teacher made of it, has more than `data.max_tokens` tokens, or that is
    blank.

    Args:
        run: in whose folder the stage is: the part of a seed, where each seed has a teacher of its own.
        teachers: the trainings of the systems that teach; none where the models are in folders. Two systems
            may have become one model; it teaches once.
    """
    recipe = run.recipe
    assert recipe.distillation is not None
    settings = dataclasses.replace(recipe.translation, beam_size=recipe.distillation.beam_size, n_best=1)
    models: dict[str, Path] = {}  # by digest
    for stage in teachers:
        models.setdefault(model_digest(stage.folder / "model"), stage.folder / "model")
    inputs = run.chosen("distillation", "data.max_tokens", *LENGTHS)
    inputs["weights of the teacher"] = list(models)
    folders = [*models.values()] or [Path(folder) for folder in recipe.distillation.folders(recipe.names)]

    def work(folder: Path) -> None:
        pairs, _ = load_pairs(recipe.data.train, recipe.data.limits)
        sources = longest_first(pairs, prepared.tokenizer, recipe.data.max_tokens)
        engine, tokenizer = teacher_engine(folders, on_gpu=recipe.training.device != "cpu")
        run.reporter.say(f"distil: translating {len(sources):,} different sources of the training set")
        translations, seconds = translated(
            Translator(engine, tokenizer, settings), sources, folder / JOURNAL, run.reporter.bar("distil")
        )
        by_source = dict(zip(sources, translations, strict=True))
        taught = [
            Pair(pair.source, by_source[pair.source])
            for pair in pairs
            if by_source.get(pair.source, "").strip()
        ]
        if not taught:
            raise InputError("the teacher translated nothing", [f"is {folders[0]} trained on such text?"])
        distilled = TokenisedCorpus.build(taught, prepared.tokenizer, recipe.data.max_tokens)
        joined(prepared.train, distilled).save(folder / "train")
        write_text(folder / "distilled.tsv", "".join(f"{s}\t{t}\n" for s, t in by_source.items()))
        facts = {"sources": len(sources), "pairs": len(distilled), "seconds": seconds}
        write_json(folder / "report.json", facts)
        run.reporter.say(f"distil: {len(distilled):,} distilled pairs beside {len(prepared.train):,}")

    stage = run.folder.stage("distil", inputs, work, after=[prepared.stage, *teachers])
    return dataclasses.replace(prepared, stage=stage, train=TokenisedCorpus.load(stage.folder / "train"))


def longest_first(pairs: Iterable[Pair], tokenizer: Tokenizer, max_tokens: int) -> list[str]:
    """The different sources of at most `max_tokens` tokens; those of one length in the order of the pairs."""
    sources = list(dict.fromkeys(pair.source for pair in pairs))
    lengths: list[int] = []
    for start in range(0, len(sources), ENCODED):
        lengths += map(len, tokenizer.encode(sources[start : start + ENCODED]))
    order = sorted(range(len(sources)), key=lambda index: -lengths[index])
    return [sources[index] for index in order if lengths[index] <= max_tokens]


def teacher_engine(folders: Sequence[Path], *, on_gpu: bool) -> tuple[Engine, Tokenizer]:
    """The fastest engine of one model, or that of an ensemble of several; and its tokenizer.

    Args:
        folders: of models with one vocabulary. `on_gpu`: whether to use one, where there is one.
    """
    device = "cuda" if on_gpu and torch.cuda.is_available() else "cpu"
    if len(folders) == 1 and device == "cpu":
        return load_engine(folders[0], "onnx")
    loaded = [load_model(folder) for folder in folders]
    models = [model.to(device) for model, _ in loaded]
    return TorchEngine(models[0]) if len(models) == 1 else EnsembleEngine(models), loaded[0][1]


def translated(
    translator: LineTranslator,
    sources: Sequence[str],
    journal: Path,
    report: Callable[[int, int, str], None],
) -> tuple[list[str], float]:
    """The translation of each source, and how many seconds all took; what the journal has is not made again.

    Sources are translated in blocks of `BLOCK`, and each block is a record of the journal: a translation
    depends on the others of its batch by rounding, so the same blocks give the same translations.

    Args:
        report: told characters done, characters in all, and a text.

    Raises:
        InputError: the journal is damaged, or of other sources; the disk is full or refuses.
    """
    blocks = [sources[start : start + BLOCK] for start in range(0, len(sources), BLOCK)]

    following = iter(enumerate(blocks))

    def parse(record: Mapping[str, Any]) -> tuple[list[str], float]:
        index, block = next(following, (None, ()))
        if record["block"] != index or len(record["translations"]) != len(block):
            raise ValueError(f"expected block {index} of {len(block)} translations")
        return record["translations"], record["seconds"]

    done = read_journal(journal, parse, f"delete {journal.parent}, then that stage runs again")
    characters = [sum(map(len, block)) for block in blocks]

    def tell() -> None:
        sentences = sum(len(translations) for translations, _ in done)
        report(sum(characters[: len(done)]), sum(characters), f"characters, {sentences:,} sentences")

    tell()
    for index in range(len(done), len(blocks)):
        start = time.monotonic()
        translations = list(translator.translate(blocks[index]))
        seconds = time.monotonic() - start
        record = {"block": index, "seconds": seconds, "translations": translations}
        append_to_journal(journal, [record], durable=False)
        done.append((translations, seconds))
        tell()
    texts = [text for translations, _ in done for text in translations]
    return texts, sum(seconds for _, seconds in done)
