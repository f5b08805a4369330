"""The page of a run: one HTML file that needs no other file, no network and no server.

Text of a user's corpora, and names that a user chose, are in it: jinja2 escapes them wherever they stand, in
the data of the script too, and a content security policy lets no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.image import imread

from automoe.design.architecture import STACKS, Architecture
from automoe.report.analyses import STACKS_NOTE
from automoe.report.asked import Asked
from automoe.report.headline import Headline
from automoe.report.search_front import SearchFront, architecture_plain, front_plain
from automoe.report.seed_report import SeedReport
from automoe.report.style import STYLE
from automoe.report.tables import Table
from automoe.storage import write_text
from automoe.web.assets import ASSETS

_PAGE = Path(__file__).parent / "page"
_STYLES = (ASSETS / "look.css", ASSETS / "expert_grid.css", _PAGE / "report.css")
_SCRIPTS = (
    ASSETS / "expert_grid.js",
    _PAGE / "architecture.js",
    _PAGE / "front.js",
    _PAGE / "report.js",
)


@dataclass(frozen=True)
class SeedPart:
    """What the page shows of one seed.

    Attributes:
        report: what its stages left.
        front: what its searches scored, if anything was searched.
        pictures: the folder of its pictures; those that are not there are left out.
    """

    report: SeedReport
    front: SearchFront | None
    pictures: Path


@dataclass(frozen=True)
class Page:
    """Everything that the page tells.

    Attributes:
        asked: the question. `headline`: the answer.
        main: the system whose architecture is open. `score_label`: what the searches ranked by.
        results, stacks, minutes: the tables. `notes`, `shortfalls`: sentences.
        seeds: by seed.
    """

    asked: Asked
    headline: Headline
    main: str
    score_label: str
    results: Table
    notes: Sequence[str]
    shortfalls: Sequence[str]
    stacks: Table
    minutes: Table
    seeds: Mapping[int, SeedPart]


def write_page(path: Path, page: Page) -> None:
    """Write the page to `path`.

    Raises:
        InputError: the folder is missing, or the disk is full.
    """
    environment = Environment(
        loader=FileSystemLoader(_PAGE), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    script = "\n".join(file.read_text(encoding="utf-8") for file in _SCRIPTS)
    style = "\n".join(file.read_text(encoding="utf-8") for file in _STYLES)
    first = next(iter(page.seeds.values()))
    html = environment.get_template("report.html.j2").render(
        asked=page.asked,
        headline=page.headline,
        results=page.results,
        notes=page.notes,
        shortfalls=page.shortfalls,
        stacks=page.stacks,
        stacks_note=STACKS_NOTE,
        minutes=page.minutes,
        seeds=[_seed_context(seed, part, page.main) for seed, part in page.seeds.items()],
        searched=any(part.front for part in page.seeds.values()),
        sentences=first.report.sentences,
        mixtures=[name for name in first.report.results if not first.report.architecture(name).is_dense],
        data=_data(page),
        policy=_policy(script),
        # Ours, and no text of a user's in it.
        script=Markup(script),
        style=Markup(style),
    )
    write_text(path, html)


def _policy(script: str) -> str:
    """Nothing is loaded, and only this script runs; between its tags it has a line break at both ends."""
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _data(page: Page) -> dict[str, Any]:
    """What the script reads."""
    first = next(iter(page.seeds.values()))
    return {
        "seeds": {
            str(seed): {
                "front": front_plain(part.front, page.score_label) if part.front else None,
                "systems": {
                    name: {
                        "stacks": architecture_plain(part.report.architecture(name)),
                        "shares": result["routing_shares"],
                    }
                    for name, result in part.report.results.items()
                },
            }
            for seed, part in page.seeds.items()
        },
        "sentences": [
            {system: output["grids"] for system, output in sentence["outputs"].items() if output["grids"]}
            for sentence in first.report.sentences
        ],
    }


def _seed_context(seed: int, part: SeedPart, main: str) -> dict[str, Any]:
    """What the template shows of one seed."""
    report = part.report
    architectures = {name: report.architecture(name) for name in report.results}
    systems = [
        {"name": name, "words": _words(architecture), "open": name == main}
        for name, architecture in architectures.items()
    ]
    validation = [
        f"{name} {result['training']['validation']['valid']:.3f}"
        for name, result in report.results.items()
        if "validation" in result["training"]
    ]
    losses = f"Lines of training and validation loss over the steps of {', '.join(report.histories)}."
    if validation:
        losses += f" Validation loss at the end: {', '.join(validation)}."
    races = [
        _picture(
            part.pictures / f"race_{name}.png",
            f"The finals of {name}: who led, who left when",
            f"A line of validation loss for each of {len(race['finalists'])} finalists; number "
            f"{race['finalists'].index(race['winner']) + 1} of the search won.",
        )
        for name, race in report.races.items()
    ]
    return {
        "seed": seed,
        "front": part.front is not None,
        "systems": systems,
        "pictures": {
            "losses": _picture(part.pictures / "loss_curves.png", "Losses over the steps", losses),
            "races": [race for race in races if race],
            "experts": _picture(
                part.pictures / "experts_a_layer.png",
                f"Experts a layer of the best candidates of {main}'s search",
                "Bars of the mean number of experts of each layer, encoder and decoder, with a line from the "
                "least to the most.",
            ),
            "time": _picture(
                part.pictures / "where_the_time_goes.png",
                f"Where the time of {main} goes, as the device profile predicts",
                "A bar for each layer of encoder and decoder and for what belongs to no layer, divided into "
                "attention, experts, output layer and overhead, in ms.",
            ),
        },
    }


def _picture(path: Path, caption: str, alt: str) -> dict[str, Any] | None:
    """The picture within the page; None where there is no such file."""
    if not path.exists():
        return None
    encoded = base64.b64encode(path.read_bytes()).decode()
    inches = imread(path).shape[1] / STYLE["figure.dpi"]
    return {
        "uri": f"data:image/png;base64,{encoded}",
        "width": round(96 * inches),  # in CSS, an inch is 96 pixels
        "caption": caption,
        "alt": alt,
    }


def _words(architecture: Architecture) -> str:
    """An architecture in a few words."""
    told = []
    for stack in STACKS:
        layers = architecture.layers(stack)
        experts = [len(layer.feed_forward.experts) for layer in layers]
        kind = "dense" if set(experts) == {1} else f"{'+'.join(map(str, experts))} experts"
        told.append(f"{stack} {len(layers)} × {layers[0].width}, {kind}")
    return "; ".join(told)
