"""Some sentences of the test set for the report: what each system made of them, with which experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automoe.data.corpus import Pair
from automoe.data.text_parts import MAX_SOURCE_TOKENS, Part
from automoe.data.tokenizer import Tokenizer
from automoe.data.vocabulary import EOS_ID
from automoe.evaluation.expert_use import ModelRouter
from automoe.evaluation.routing import route_sentences
from automoe.inference.model_folder import load_model
from automoe.model.transformer import Transformer
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
    outputs: dict[str, list[dict[str, Any]]] = {}
    for system, folder in models.items():
        model, tokenizer = load_model(folder)
        # One by one: sentences of many lengths are mostly padding.
        outputs[system] = [
            _output(model, tokenizer, pairs[index].source, translations[system][index]) for index in chosen
        ]
    return [
        {
            "source": pairs[index].source,
            "reference": references[index],
            "outputs": {system: of_system[place] for system, of_system in outputs.items()},
        }
        for place, index in enumerate(chosen)
    ]


def _output(model: Transformer, tokenizer: Tokenizer, source: str, translation: str) -> dict[str, Any]:
    """A translation with the experts that one pass over both sides takes, or why no such pass was made."""
    (parts,) = tokenizer.parts([source])
    (target,) = tokenizer.encode([translation])
    if (note := _no_pass(parts, target)) is not None:
        return {"translation": translation, "grids": None, "note": note}
    (routing,) = route_sentences(ModelRouter(model), [[*parts[0].tokens, EOS_ID]], [target])
    return {"translation": translation, "grids": grids_of(routing, tokenizer), "note": None}


def _no_pass(parts: Sequence[Part], target: Sequence[int]) -> str | None:
    """Why the experts of a line cannot be shown as those of one pass; None where they can."""
    if not parts:
        return "the source is blank, so nothing was translated"
    if len(parts) > 1:
        return f"split in {len(parts)} parts, each translated by itself, because it is too long"
    if not parts[0].tokens:
        return "copied, because the vocabulary knows no letter of it"
    if len(target) >= MAX_SOURCE_TOKENS:
        return f"the translation is too long to be shown token by token ({len(target):,} tokens)"
    return None
