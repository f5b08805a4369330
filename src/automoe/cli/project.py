"""`automoe init`: what a project is made of, from options, or asked for on a terminal."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automoe.cli.options import path_argument, path_option, takes_protocol
from automoe.cost.protocol import MeasuringProtocol
from automoe.errors import InputError

if TYPE_CHECKING:
    from automoe.cost.costs import Bound

app = typer.Typer()

LONGEST_HOURS = 24.0 * 365
# ISO 639-1: only these are guessed from a name, so that `my-own.txt` is in no language.
_LANGUAGES = """
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da
    de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy
    hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg
    li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or
    os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta
    te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
_BEHIND_CODE = re.compile(r"\.(gz|xz|bz2|zst|txt)$", re.IGNORECASE)
_BOUND_EXAMPLE = "20, or a share such as 40% of what a deep dense Transformer takes"


@app.command()
@takes_protocol("backend", "precision", "threads", backend="onnx")
def init(
    folder: Annotated[Path, path_argument("The project's; it must not exist.", "FOLDER")],
    protocol: MeasuringProtocol,
    source: Annotated[str | None, path_option(text="Text file, a sentence a line.")] = None,
    target: Annotated[str | None, path_option(text="Its translation, line by line.")] = None,
    corpus: Annotated[str | None, path_option(text="Or one file with both: TSV, JSONL, Parquet, ...")] = None,
    dataset: Annotated[str | None, path_option(text="Or the name of a corpus that `datasets` knows.")] = None,
    config: Annotated[str | None, typer.Option(help="With --dataset: its configuration.")] = None,
    split: Annotated[str | None, typer.Option(help="With --dataset: its split, by default train.")] = None,
    source_column: Annotated[str | None, typer.Option(help="Of --corpus: name, or place from 0.")] = None,
    target_column: Annotated[str | None, typer.Option(help="Of --corpus: name, or place from 0.")] = None,
    valid: Annotated[
        str | None, path_option(text="Validation set: a file like --corpus, or a split of --dataset.")
    ] = None,
    test: Annotated[
        str | None, path_option(text="Test set: a file like --corpus, or a split of --dataset.")
    ] = None,
    valid_source: Annotated[str | None, path_option(text="Validation set: two files.")] = None,
    valid_target: Annotated[str | None, path_option(text="Its other side.")] = None,
    test_source: Annotated[str | None, path_option(text="Test set: two files.")] = None,
    test_target: Annotated[str | None, path_option(text="Its other side.")] = None,
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

    from automoe.cli.text_options import TextOptions
    from automoe.run.new_project import ProjectRequest, make_project
    from automoe.run.plan import Wish
    from automoe.training.precision import multiplies_bfloat16
    from automoe.training.settings import Precision

    text = TextOptions(
        source=source,
        target=target,
        corpus=corpus,
        dataset=dataset,
        config=config,
        split=split,
        source_column=source_column,
        target_column=target_column,
        valid=valid,
        test=test,
        valid_source=valid_source,
        valid_target=valid_target,
        test_source=test_source,
        test_target=test_target,
    )
    asked = _Asked(on_terminal(), text.problems())
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
    if asked.problems:
        raise InputError("automoe init cannot work with these options", asked.problems)
    assert allowed_hours is not None
    assert languages[0] is not None
    assert languages[1] is not None
    known = (languages[0], languages[1])
    train = text.corpus_of("corpus", known)
    assert train is not None
    gpu = torch.cuda.is_available()
    precision: Precision = "bf16-mixed" if multiplies_bfloat16("cuda" if gpu else "cpu") else "32-true"
    request = ProjectRequest(
        folder=folder,
        train=train,
        valid=text.corpus_of("valid", known),
        test=text.corpus_of("test", known),
        source_language=languages[0],
        target_language=languages[1],
        wish=Wish(bounds, allowed_hours, gpu, precision),
        protocol=protocol,
    )
    make_project(request, lambda line: print(line, flush=True))  # it takes minutes, and may go into a pipe
    print(f"\nWritten:  {folder / 'recipe.yaml'}, which explains every line")
    print(f"Run it:   automoe run {folder}")


def on_terminal() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class _Asked:
    """Asks for what no option said, on a terminal; elsewhere it is a problem.

    Nobody is asked where there is a problem already, which no answer would mend.
    """

    def __init__(self, on_terminal: bool, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        self.on_terminal = on_terminal
        self.answered = on_terminal and not self.problems

    def text(self, option: str, given: str | None, question: str) -> str | None:
        if given is None and self.answered:
            given = str(typer.prompt(question, err=True))
        if given is None and not self.on_terminal:
            self.problems.append(f"{option}: missing")
        return given

    def number(self, option: str, given: float | None, question: str) -> float | None:
        if given is None and self.answered:
            given = float(typer.prompt(question, type=float, err=True))
        if given is None:
            if not self.on_terminal:
                self.problems.append(f"{option}: missing")
        elif not math.isfinite(given):
            self.problems.append(f"{option}: expected a number, got {given}")
            return None
        return given


def _bounds(asked: _Asked, latency_ms: str | None, flops: str | None) -> dict[str, Bound]:
    """The budget; what is wrong with it goes to the problems."""
    from automoe.cost.costs import check_bounds

    given = {"latency_ms": latency_ms, "flops": flops}
    if asked.answered and latency_ms is None and flops is None:
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
    if not any(given.values()) and not asked.on_terminal:
        asked.problems.append(f"--latency-ms or --flops: missing, the budget: {_BOUND_EXAMPLE}")
    return bounds


def _guessed(own: str | None, corpus: str | None, side: int) -> str | None:
    """The language that a file's name tells: `train.de.gz` is German, `news.en-de.tsv` English and German."""
    if own is not None:
        name = own
        while _BEHIND_CODE.search(name):
            name = _BEHIND_CODE.sub("", name)
        found = re.search(r"\.([A-Za-z]{2})([-_][A-Za-z]{2,4})?$", name)
        code = found[1].lower() if found else ""
        return code + (found[2] or "") if found and code in _LANGUAGES.split() else None
    for pair in re.finditer(r"(?<![A-Za-z])([A-Za-z]{2})-([A-Za-z]{2})(?![A-Za-z])", Path(corpus or "").name):
        codes = [code.lower() for code in pair.groups()]
        if {*codes} <= set(_LANGUAGES.split()):
            return codes[side]
    return None
