"""Some sentences of the test set for the report: what each system made of them, with which experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automoe.data.corpus import Pair
from automoe.data.text_parts import MAX_SOURCE_TOKENS
from automoe.data.vocabulary import EOS_ID
from automoe.evaluation.routing import route_sentences
from automoe.inference.model_folder import load_model
from automoe.web.expert_grid import grids_of

SHOWN = 20
"""Sentences in a report."""

READABLE_CHARACTERS = 300
"""Longer ones are shown only where there are not enough others."""


def choose_sentences(pairs: Sequence[Pair]) -> list[int]:
    """Indices of `SHOWN` pairs (of all when there are fewer), evenly spaced over those one can read."""

    def characters(index: int) -> int:
        return max(len(pairs[index].source), len(pairs[index].target))

    by_length = sorted(range(len(pairs)), key=characters)
    readable = sum(characters(index) <= READABLE_CHARACTERS for index in by_length)
    among = sorted(by_length[: max(readable, SHOWN)])
    count = min(SHOWN, len(among))
    return [among[place * len(among) // count] for place in range(count)]


def sentences_of(
    pairs: Sequence[Pair],
    references: Sequence[str],
    models: Mapping[str, Path],
    translations: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """What `SeedReport.sentences` holds: some pairs, and for each what every system wrote.

    Args:
        pairs: the test set. `references`: what scores are against.
        models: by system, its folder. `translations`: by system, of the test set.
    """
    chosen = choose_sentences(pairs)
    most = MAX_SOURCE_TOKENS - 1  # of a longer line, which was translated in parts, the beginning
    outputs: dict[str, list[dict[str, Any]]] = {}
    for system, folder in models.items():
        model, tokenizer = load_model(folder)
        written = [translations[system][index] for index in chosen]
        sources = [[*tokens[:most], EOS_ID] for tokens in tokenizer.encode([pairs[i].source for i in chosen])]
        targets = [tokens[:most] for tokens in tokenizer.encode(written)]
        # One by one: sentences of many lengths are mostly padding.
        routed = [
            route_sentences(model, [source], [target])[0]
            for source, target in zip(sources, targets, strict=True)
        ]
        outputs[system] = [
            {"translation": text, "grids": grids_of(routing, tokenizer)}
            for text, routing in zip(written, routed, strict=True)
        ]
    return [
        {
            "source": pairs[index].source,
            "reference": references[index],
            "outputs": {system: of_system[place] for system, of_system in outputs.items()},
        }
        for place, index in enumerate(chosen)
    ]
