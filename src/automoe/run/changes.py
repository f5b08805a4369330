"""What has changed between two sets of inputs, in words that a user can compare with a recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_CHARACTERS = 60
_ABSENT = object()


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """A line for each value that differs, such as `training.steps: 40 -> 60`; JSON values, nested or not."""
    old, new = dict(_leaves("", before)), dict(_leaves("", after))
    return [
        f"{name}: {_shown(old.get(name, _ABSENT))} -> {_shown(new.get(name, _ABSENT))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name, _ABSENT) != new.get(name, _ABSENT)
    ]


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(f"{name}[{index}]", inner)
    else:
        yield name, value


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    if isinstance(value, str):
        return f"{value[:8]}..." if _DIGEST.fullmatch(value) else value
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
