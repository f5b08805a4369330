"""`automoe init`: from somebody's own text to a folder with a recipe that fits their time and machine."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automoe.cost.protocol import MeasuringProtocol
from automoe.data.batching import TokenisedCorpus
from automoe.data.corpus import CorpusSource, LoadReport, Pair, load_pairs
from automoe.data.splitting import divide, held_out_size
from automoe.data.survey import survey, text_keys
from automoe.data.tokenizer import Tokenizer, train_tokenizer
from automoe.design.architecture_file import save_architecture
from automoe.errors import InputError, validate_plain
from automoe.export.export_folder import write_folder
from automoe.run.machine_speed import measure_speed
from automoe.run.plan import CorpusFacts, MachineSpeed, RunPlan, Wish, batch_tokens, best_plan
from automoe.run.recipe import Data, load_recipe
from automoe.run.recipe_text import BASELINE, RECIPE, SPACE, ProjectData, recipe_text, space_text
from automoe.run.scales import Scale
from automoe.run.systems import MOST_NAME_BYTES
from automoe.storage import whole_file, write_text

DATA = "data"
# Texts that tell how many tokens there are, and how fast they are trained on: more would tell the same.
SAMPLED_PAIRS = 100_000
FEWEST_TOKENS, MOST_TOKENS = 100, 400  # of a side, in training
LONG_SHARE = 0.02  # of the pairs may be left out as too long
SMALLEST_VOCABULARY = 8
VOCABULARY_STEP = 0.9  # a text that is too small for a vocabulary is tried with one this much smaller

Say = Callable[[str], None]
LookAtSpeed = Callable[[Scale, TokenisedCorpus, TokenisedCorpus, MeasuringProtocol, int, Wish], MachineSpeed]


@dataclass(frozen=True)
class ProjectRequest:
    """What a project is made of.

    Attributes:
        folder: of the project; must not exist.
        train: all text there is, or the training set. `valid`, `test`: taken out of it where they are None.
        source_language, target_language: codes such as `en`.
        wish: budget and time. `protocol`: the engine of latencies.
    """

    folder: Path
    train: CorpusSource
    valid: CorpusSource | None
    test: CorpusSource | None
    source_language: str
    target_language: str
    wish: Wish
    protocol: MeasuringProtocol


@dataclass(frozen=True)
class _Sets:
    """The pairs of each set, and where a recipe finds those that are not written into the project."""

    pairs: Mapping[str, Sequence[Pair]]
    given: Mapping[str, CorpusSource]


def make_project(request: ProjectRequest, say: Say, speed_of: LookAtSpeed = measure_speed) -> RunPlan:
    """Look at the text, divide it, measure this machine, and write the folder with the recipe.

    The folder appears when it is complete; a process that is killed before leaves none of that name.

    Args:
        say: hears what is found, a line each. `speed_of`: replaces the measuring.

    Raises:
        InputError: the folder exists or cannot be written; a corpus cannot be read or divided; a language is
            unknown; no recipe keeps budget and time.
    """
    _check_folder(request.folder)
    _check_languages(request)
    sets = _find_sets(request, say)
    say("measuring this machine, about a minute")
    plan = best_plan(_looking(request, sets, say, speed_of), request.wish)
    _say_plan(plan, say)
    _write(request, sets, plan)
    return plan


def _check_folder(folder: Path) -> None:
    if os.path.lexists(folder):
        raise InputError(f"{folder}: exists already", ["give the name of a new folder"])
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: cannot be made", [f"there is no folder {folder.parent}"])
    tried = folder.with_name(f".{folder.name}.{os.getpid()}.new")  # as long a name as is needed at the end
    try:  # no look at permissions tells of read-only disks, quotas and names that are too long
        tried.mkdir()
        tried.rmdir()
    except OSError as error:
        raise InputError(f"{folder}: cannot be made", [error.strerror or str(error)]) from error


def _check_languages(request: ProjectRequest) -> None:
    """By the recipe's own rules, before anything takes time."""
    anywhere = {"path": "text.tsv"}
    plain = {
        "train": anywhere, "valid": anywhere, "test": anywhere, "vocabulary": {"size": 4000},
        "source_language": request.source_language, "target_language": request.target_language,
    }  # fmt: skip
    validate_plain(Data, plain, "these languages cannot be used")


def _find_sets(request: ProjectRequest, say: Say) -> _Sets:
    """Read the corpora, tell what is in them, take out what is missing or must not be in the training set."""
    given = {"valid": request.valid, "test": request.test}
    train, report = load_pairs(request.train)
    say(f"training text: {report}")
    _say_left_out(report, say)
    _say_survey(train, request, say)
    held_out = {name: load_pairs(source) for name, source in given.items() if source is not None}
    known = {name: text_keys(pair.source for pair in pairs) for name, (pairs, _) in held_out.items()}
    trained_on = text_keys(pair.source for pair in train) if known else None
    for name, (_, report) in held_out.items():
        overlap = 0 if trained_on is None else int(np.isin(known[name], trained_on).sum())
        say(f"{name} set: {report}; {overlap:,} with a source that is in the training text")
        _say_left_out(report, say)
    apart = np.concatenate(list(known.values())) if known else None
    sizes = {name: held_out_size(len(train)) if source is None else 0 for name, source in given.items()}
    division = divide(train, sizes["valid"], sizes["test"], apart)
    parts: dict[str, NDArray[np.int64]] = {"valid": division.valid, "test": division.test}
    pairs = {name: held_out[name][0] if name in held_out else _some(train, parts[name]) for name in given}
    if division.left_out:
        say(
            f"  {division.left_out:,} pairs are in no set, so that no source of one set is in another (a "
            "sentence of another set, or one of a document that was taken out and that others have, too)"
        )
    if taken := [name for name, source in given.items() if source is None]:
        by = "document" if division.by_document else "source sentence"
        counts = ", ".join(f"{name} {len(pairs[name]):,}" for name in taken)
        say(f"divided by {by}: train {len(division.train):,}, {counts}")
    whole = len(division.train) == len(train)
    sources = {"train": request.train if whole else None, **given}
    return _Sets(
        {"train": train if whole else _some(train, division.train), **pairs},
        {name: source for name, source in sources.items() if source is not None},
    )


def _some(pairs: Sequence[Pair], indices: NDArray[np.int64]) -> list[Pair]:
    return [pairs[index] for index in indices.tolist()]


def _say_left_out(report: LoadReport, say: Say) -> None:
    if report.cleaned:
        say(f"  with characters that show nothing, which are left out: {report.cleaned:,}")
    if report.not_used is not None:
        say(f"  {report.not_used}")


def _say_survey(pairs: Sequence[Pair], request: ProjectRequest, say: Say) -> None:
    found = survey(pairs)
    languages = request.source_language, request.target_language
    say(
        f"  {languages[0]}: {found.source_characters:.0f} characters a sentence, {languages[1]}: "
        f"{found.target_characters:.0f}; the longest {found.longest_characters:,}"
    )
    say(f"  documents: {found.documents:,}" if found.documents else "  documents: none are named")
    say(
        f"  repeated: {found.repeated_pairs:,} pairs, {found.repeated_sources:,} sources; "
        f"both sides equal: {found.copied:,}"
    )
    for doubt in found.doubts:
        say(f"  WARNING: {doubt}")


def _looking(
    request: ProjectRequest, sets: _Sets, say: Say, speed_of: LookAtSpeed
) -> Callable[[Scale], tuple[CorpusFacts, MachineSpeed]]:
    """What `best_plan` asks of each scale: the corpus in its vocabulary, and the speeds."""

    @cache
    def tokenised(size: int) -> tuple[CorpusFacts, TokenisedCorpus, TokenisedCorpus]:
        return _tokenised(sets, size)

    def look(scale: Scale) -> tuple[CorpusFacts, MachineSpeed]:
        facts, train, valid = tokenised(scale.vocabulary_size)
        protocol = dataclasses.replace(request.protocol, vocabulary_size=facts.vocabulary_size, norm="pre")
        batch = batch_tokens(scale, facts.target_tokens, request.wish.gpu)
        speed = speed_of(scale, train, valid, protocol, batch, request.wish)
        say(
            f"  {scale.name} space: a supernet's step {speed.supernet_tokens_s:,.0f} target tokens/s, "
            f"{speed.member} {speed.member_tokens_s:,.0f}, {1000 * speed.member_s:.1f} ms a sentence"
        )
        return facts, speed

    return look


def _tokenised(sets: _Sets, vocabulary_size: int) -> tuple[CorpusFacts, TokenisedCorpus, TokenisedCorpus]:
    """Facts of the corpus in a vocabulary of about this size, and samples of training and validation set."""
    train, valid = sets.pairs["train"], sets.pairs["valid"]
    sample = train[:: max(1, len(train) // SAMPLED_PAIRS)]
    start = time.perf_counter()
    tokenizer = _largest_vocabulary(sample, vocabulary_size)
    tokens = TokenisedCorpus.build(sample, tokenizer, max_tokens=10**9)
    seconds = (time.perf_counter() - start) * len(train) / len(sample)
    lengths = np.maximum(*(np.diff(offsets) for offsets in tokens.offsets.values()))
    longest = int(np.quantile(lengths, 1 - LONG_SHARE))
    max_tokens = min(MOST_TOKENS, max(FEWEST_TOKENS, 10 * -(-longest // 10)))
    if float(np.median(lengths)) > max_tokens:
        problem = f"half of the pairs are longer than {max_tokens} tokens: is a line a sentence?"
        raise InputError("the sentences of this corpus are too long", [problem])
    sampled = TokenisedCorpus.build(sample, tokenizer, max_tokens)
    facts = CorpusFacts(
        train_pairs=len(train),
        valid_pairs=len(valid),
        test_pairs=len(sets.pairs["test"]),
        target_tokens=(len(sampled.tokens["target"]) + len(sampled)) * len(train) / len(sample),
        prepare_s=seconds,
        vocabulary_size=tokenizer.vocabulary_size,
        max_tokens=max_tokens,
    )
    return facts, sampled, TokenisedCorpus.build(valid[:1000], tokenizer, MOST_TOKENS)


def _largest_vocabulary(sample: Sequence[Pair], size: int) -> Tokenizer:
    """A vocabulary of the size, or the largest that this text has; larger where its characters need it.

    Raises:
        InputError: no size goes with this text.
    """
    sizes = [size, 2 * size, 4 * size]
    while sizes[-1] > SMALLEST_VOCABULARY or len(sizes) == 3:
        following = size if len(sizes) == 3 else sizes[-1]
        sizes.append(min(following - 1, int(VOCABULARY_STEP * following)))
    refused: InputError | None = None
    for wanted in sizes:
        try:
            texts = (text for pair in sample for text in (pair.source, pair.target))
            return train_tokenizer(texts, wanted)
        except InputError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _say_plan(plan: RunPlan, say: Say) -> None:
    facts = plan.facts
    say(
        f"plan: the {plan.scale.name} space, a vocabulary of {facts.vocabulary_size:,}, batches of "
        f"{plan.batch_tokens:,} tokens, {plan.supernet_steps:,} steps of the supernet, {plan.steps:,} of a "
        f"training ({plan.epochs:.2g} times the text), finals of {plan.candidates}"
    )
    say(f"  {60 * plan.hours:.0f} minutes expected, at most")


def _write(request: ProjectRequest, sets: _Sets, plan: RunPlan) -> None:
    folder = request.folder
    sources = {
        name: _beside(sets.given[name], folder)
        if name in sets.given
        else CorpusSource(path=f"{DATA}/{name}.tsv")
        for name in sets.pairs
    }
    data = ProjectData(
        sources["train"],
        sources["valid"],
        sources["test"],
        source_language=request.source_language,
        target_language=request.target_language,
    )
    readable = re.sub(r"[^\w.-]+", "-", folder.name).encode("utf-8", "ignore")[:MOST_NAME_BYTES]
    name = readable.decode("utf-8", "ignore").strip("-.") or "project"

    def write(partial: Path) -> None:
        if set(sets.pairs) - set(sets.given):
            (partial / DATA).mkdir()
        for part, pairs in sets.pairs.items():
            if part not in sets.given:
                _write_pairs(partial / DATA / f"{part}.tsv", pairs)
        write_text(partial / SPACE, space_text(plan.scale))
        save_architecture(plan.scale.baseline, partial / BASELINE)
        text = recipe_text(name, data, plan, request.wish, request.protocol)
        write_text(partial / RECIPE, text)
        load_recipe(partial / RECIPE)  # what is wrong with it should be known now

    write_folder(folder, ("made_by", "automoe init"), write)


def _beside(source: CorpusSource, folder: Path) -> CorpusSource:
    """The source with paths relative to a folder, whatever links lead there."""
    start = folder.parent.resolve() / folder.name

    def relative(path: str) -> str:
        given = Path(path)
        return os.path.relpath(given.parent.resolve() / given.name, start)

    paths = {
        name: relative(value)
        for name in ("path", "source_path", "target_path")
        if (value := getattr(source, name)) is not None
    }
    return dataclasses.replace(source, **paths)


def _write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """TSV with source, target and document; `load_pairs` left no tab or line break in a sentence."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        for pair in pairs:
            # Nobody cleaned the document's name.
            document = " ".join(pair.document.encode("utf-8", "replace").decode("utf-8").split())
            file.write(f"{pair.source}\t{pair.target}\t{document}\n")
