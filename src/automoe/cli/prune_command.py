"""`automoe prune`: a trained model without the experts that it hardly uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automoe.cli.options import ModelFolder, path_option, takes_protocol
from automoe.cost.protocol import MeasuringProtocol
from automoe.errors import InputError

if TYPE_CHECKING:
    from automoe.data.corpus import CorpusSource
    from automoe.run.prune import Pruning

app = typer.Typer()


@app.command()
@takes_protocol(
    "backend", "precision", "threads", "beam_size", "source_length", "target_length", backend="onnx"
)
def prune(
    model: ModelFolder,
    protocol: MeasuringProtocol,
    output: Annotated[Path, path_option("--output", "-o", text="A new model folder.", metavar="DIR")],
    valid: Annotated[
        str | None, path_option(text="The text that tells which experts are used: a file with both sides.")
    ] = None,
    valid_source: Annotated[str | None, path_option(text="Or two text files, a sentence a line.")] = None,
    valid_target: Annotated[str | None, path_option(text="Its other side.")] = None,
    min_importance: Annotated[
        str, typer.Option(metavar="SHARE%", help="Experts below it leave; 0%: those without tokens.")
    ] = "1%",
    steps: Annotated[int, typer.Option(min=0, help="So many more of training, without those experts.")] = 0,
    train: Annotated[str | None, path_option(text="With --steps: what is trained on.")] = None,
    train_source: Annotated[str | None, path_option(text="Or two text files, a sentence a line.")] = None,
    train_target: Annotated[str | None, path_option(text="Its other side.")] = None,
    peak_rate: Annotated[float, typer.Option(help="With --steps: the highest learning rate.")] = 3e-4,
    target_language: Annotated[
        str | None, typer.Option(help="Of BLEU, a code such as de; by default what the model says.")
    ] = None,
    turns: Annotated[int, typer.Option(min=2, help="Measurements of each latency.")] = 40,
) -> None:
    """Remove the experts that a model hardly uses; compare BLEU, bytes and latency before and after.

    The model stays as it is; what is left of it is a new folder.
    """
    texts = (
        _Text("valid", valid, valid_source, valid_target),
        _Text("train", train, train_source, train_target),
    )
    problems = [problem for text in texts for problem in text.problems()]
    share = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", min_importance)
    if share is None or float(share[1]) > 100:
        problems.append(f"--min-importance: expected a share such as 1%, got {min_importance!r}")
    if not texts[0].given:
        problems.append("--valid: missing, the text that tells which experts are used")
    if steps and not texts[1].given:
        problems.append("--train: missing, what the --steps are trained on")
    if texts[1].given and not steps:
        problems.append("--steps: missing, how many are trained on the text of --train")
    if problems or share is None:
        raise InputError("automoe prune cannot work with these options", problems)

    from automoe.inference.model_folder import read_card, read_model
    from automoe.progress import Reporter
    from automoe.run.prune import PruneRequest
    from automoe.run.prune import prune as prune_model

    read_model(model)  # says what is wrong with a folder, better than its card can
    card = read_card(model)
    request = PruneRequest(
        model=model,
        output=output,
        valid=texts[0].corpus(card),
        protocol=protocol,
        min_importance=float(share[1]) / 100,
        target_language=target_language,
        train=texts[1].corpus(card) if steps else None,
        steps=steps,
        peak_rate=peak_rate,
        turns=turns,
    )
    for line in _told(prune_model(request, Reporter())):
        print(line)
    print(f"Pruned model: {output}")


@dataclass(frozen=True, slots=True)
class _Text:
    """The options of one text: a file with both sides, or two files."""

    name: str
    file: str | None
    source: str | None
    target: str | None

    @property
    def given(self) -> bool:
        return any(part is not None for part in (self.file, self.source, self.target))

    def problems(self) -> Iterator[str]:
        option = f"--{self.name}"
        if "" in (self.file, self.source, self.target):
            yield f"{option}: is empty"
        if (self.source is None) != (self.target is None):
            yield f"{option}-source, {option}-target: go together"
        elif self.file is not None and self.source is not None:
            yield f"{option}: give the text in one way, not in two"

    def corpus(self, card: dict[str, Any]) -> CorpusSource:
        """Where it is. The languages of the model tell the sides of rows that name none."""
        from automoe.data.corpus import CorpusSource

        if self.file is None:
            return CorpusSource(source_path=self.source, target_path=self.target)
        languages = {name: card[name] for name in ("source_language", "target_language") if name in card}
        return CorpusSource(path=self.file, **(languages if len(languages) == 2 else {}))


def _told(pruning: Pruning) -> Iterator[str]:
    for layer in pruning.layers:
        yield f"{layer.layer}:"
        for expert, size in enumerate(layer.ffn_sizes):
            yield (
                f"  expert {expert + 1}, size {size:5}: {layer.shares[expert]:6.1%} of the tokens, "
                f"importance {layer.importances[expert]:6.1%}"
                f"{', removed' if expert in layer.emptied else ''}"
            )
    before, after = pruning.before, pruning.after
    yield f"{'':20}{'before':>14}{'after':>14}"
    yield f"{'BLEU, of that text':20}{before.bleu:14.2f}{after.bleu:14.2f}"
    yield f"{'weights, bytes':20}{before.weight_bytes:14,}{after.weight_bytes:14,}"
    yield f"{'latency, ms':20}{before.latency_ms:14.2f}{after.latency_ms:14.2f}"
    if pruning.latency.noisy:
        yield "The machine was too busy to believe these latencies: stop other programs and measure again."
