"""`automoe init`: what a project is made of, from options, or asked for on a terminal."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from automoe.cli.options import takes_protocol
from automoe.cost.costs import Bound, check_bounds
from automoe.cost.protocol import MeasuringProtocol
from automoe.data.corpus import CorpusSource
from automoe.errors import InputError

app = typer.Typer()

LONGEST_HOURS = 24.0 * 365
_CODE = r"[a-z]{2,3}(?:[-_][A-Za-z]{2,4})?"
_COMPRESSED = re.compile(r"\.(gz|xz|bz2|zst)$", re.IGNORECASE)
_BOUND_EXAMPLE = "20, or a share such as 40% of what a deep dense Transformer takes"

SourceFile = Annotated[str | None, typer.Option("--source", help="Text file, a sentence a line.")]
TargetFile = Annotated[str | None, typer.Option("--target", help="Its translation, line by line.")]


@app.command()
@takes_protocol("backend", "precision", "threads", backend="onnx")
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The project's; it must not exist.")],
    protocol: MeasuringProtocol,
    source: SourceFile = None,
    target: TargetFile = None,
    corpus: Annotated[
        str | None, typer.Option(help="Or one file with both: TSV, JSONL, Parquet, ...")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Or the name of a corpus that `datasets` knows.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="With --dataset: its configuration.")] = None,
    split: Annotated[str, typer.Option(help="With --dataset: its split.")] = "train",
    source_column: Annotated[str | None, typer.Option(help="Of --corpus: name, or place from 0.")] = None,
    target_column: Annotated[str | None, typer.Option(help="Of --corpus: name, or place from 0.")] = None,
    valid: Annotated[
        str | None, typer.Option(help="Validation set: a file like --corpus, or a split of --dataset.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Test set: a file like --corpus, or a split of --dataset.")
    ] = None,
    valid_source: Annotated[str | None, typer.Option(help="Validation set: two files.")] = None,
    valid_target: Annotated[str | None, typer.Option(help="Its other side.")] = None,
    test_source: Annotated[str | None, typer.Option(help="Test set: two files.")] = None,
    test_target: Annotated[str | None, typer.Option(help="Its other side.")] = None,
    source_language: Annotated[str | None, typer.Option(help="A code such as en.")] = None,
    target_language: Annotated[str | None, typer.Option(help="A code such as de.")] = None,
    latency_ms: Annotated[
        str | None, typer.Option(metavar="MS|SHARE%", help=f"Budget: {_BOUND_EXAMPLE}.")
    ] = None,
    flops: Annotated[
        str | None, typer.Option(metavar="NUMBER|SHARE%", help="Budget: of one sentence, 2e7 or 25%.")
    ] = None,
    hours: Annotated[float | None, typer.Option(help="How long the run may compute.")] = None,
) -> None:
    """Look at your text, measure this machine, and write a recipe that fits your budget and your time.

    Without --valid and --test such sets are taken out of the text. What is not said is asked on a terminal.
    """
    import torch

    from automoe.run.new_project import ProjectRequest, make_project
    from automoe.run.plan import Wish

    asked = _Asked(sys.stdin.isatty() and sys.stderr.isatty())
    columns = _columns(source_column, target_column)
    languages = (
        source_language or _guessed(source, corpus, 0),
        target_language or _guessed(target, corpus, 1),
    )
    languages = (
        asked.text("--source-language", languages[0], "Language of the source (a code such as en)"),
        asked.text("--target-language", languages[1], "Language of the target (a code such as de)"),
    )
    bounds = _bounds(asked, latency_ms, flops)
    allowed_hours = asked.number("--hours", hours, "How many hours may it compute")
    if allowed_hours is not None and not 0 < allowed_hours <= LONGEST_HOURS:
        asked.problems.append(
            f"--hours: expected 0 to {LONGEST_HOURS:.0f}, more than 0, got {allowed_hours:g}"
        )
    if languages[0] is not None and languages[0] == languages[1]:
        asked.problems.append(f"--source-language, --target-language: both are {languages[0]}")

    def named(path: str | None, paths: Sequence[str | None], options: str, part: str | None) -> Any:
        """The corpus of one set; None where it is not given."""
        known = {
            "source_path": paths[0], "target_path": paths[1],
            "path": None if dataset else path, "dataset": dataset if part else None,
            "config": config if part else None, "split": part,
        }  # fmt: skip
        fields: dict[str, Any] = {key: value for key, value in known.items() if value is not None}
        if not fields:
            return None
        for key in ("path", "source_path", "target_path"):
            if key in fields:
                fields[key] = os.path.expanduser(fields[key])
        if "source_path" not in fields and "target_path" not in fields:
            fields |= {"source_language": languages[0], "target_language": languages[1], **columns}
        try:
            return CorpusSource(**fields)
        except InputError as error:
            asked.problems += [f"{options}: {problem}" for problem in error.problems]
            return None

    problems_before = len(asked.problems)
    train = named(corpus, (source, target), "--source, --target, --corpus", split if dataset else None)
    if train is None and len(asked.problems) == problems_before:
        asked.problems.append("give the text: --source and --target, or --corpus, or --dataset")
    validation = named(valid, (valid_source, valid_target), "--valid", valid if dataset else None)
    testing = named(test, (test_source, test_target), "--test", test if dataset else None)
    if asked.problems:
        raise InputError("automoe init needs to know more", asked.problems)
    assert allowed_hours is not None
    assert languages[0] is not None
    assert languages[1] is not None
    request = ProjectRequest(
        folder=folder,
        train=train,
        valid=validation,
        test=testing,
        source_language=languages[0],
        target_language=languages[1],
        wish=Wish(bounds, allowed_hours, gpu=torch.cuda.is_available()),
        protocol=protocol,
    )
    make_project(request, print)
    print(f"\nWritten:  {folder / 'recipe.yaml'}, which explains every line")
    print(f"Run it:   automoe run {folder}")


class _Asked:
    """Asks for what no option said, on a terminal; elsewhere it is a problem."""

    def __init__(self, on_terminal: bool) -> None:
        self.on_terminal = on_terminal
        self.problems: list[str] = []

    def text(self, option: str, given: str | None, question: str) -> str | None:
        if given is None and self.on_terminal:
            given = str(typer.prompt(question, err=True))
        if given is None:
            self.problems.append(f"{option}: missing")
        return given

    def number(self, option: str, given: float | None, question: str) -> float | None:
        if given is None and self.on_terminal:
            given = float(typer.prompt(question, type=float, err=True))
        if given is None:
            self.problems.append(f"{option}: missing")
        elif not math.isfinite(given):
            self.problems.append(f"{option}: expected a number, got {given}")
            return None
        return given


def _bounds(asked: _Asked, latency_ms: str | None, flops: str | None) -> dict[str, Bound]:
    """The budget; what is wrong with it goes to the problems."""
    given = {"latency_ms": latency_ms, "flops": flops}
    if asked.on_terminal and latency_ms is None and flops is None:
        question = f"Budget: milliseconds a sentence ({_BOUND_EXAMPLE})"
        given["latency_ms"] = str(typer.prompt(question, err=True))
    bounds: dict[str, Bound] = {}
    for name, text in given.items():
        if text is None:
            continue
        option = f"--{name.replace('_', '-')}"
        try:
            bound: Bound = text if re.fullmatch(r"\d+(\.\d+)?%", text) else float(text)
            check_bounds({name: bound})
            bounds[name] = bound
        except (InputError, ValueError):
            asked.problems.append(f"{option}: expected a number, or a share such as 40%, got {text!r}")
    if not any(given.values()):
        asked.problems.append(f"--latency-ms or --flops: missing, the budget: {_BOUND_EXAMPLE}")
    return bounds


def _columns(source: str | None, target: str | None) -> dict[str, int | str]:
    given = {"source_column": source, "target_column": target}
    return {key: int(text) if text.isdecimal() else text for key, text in given.items() if text is not None}


def _guessed(own: str | None, corpus: str | None, side: int) -> str | None:
    """The language that a file's name tells: `train.de.gz` is German, `news.en-de.tsv` English and German."""
    if own is not None:
        found = re.search(rf"\.({_CODE})$", _COMPRESSED.sub("", own))
        return found[1] if found else None
    pair = re.search(r"(?:^|[._/-])([a-z]{2,3})-([a-z]{2,3})(?=[._])", corpus or "")
    return pair[side + 1] if pair else None
