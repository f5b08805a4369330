"""For the reference (`make docs`): a docstring's "a, b: text" is one entry for a and one for b.

A griffe extension, named in mkdocs.yml. Google's style has one name an entry; the docstrings of this project
describe together what belongs together.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ENTRY = re.compile(r"^    (?P<names>\w+(, \w+)+):(?P<text>.*(\n {5,}.*)*)", re.MULTILINE)


class JointNames(griffe.Extension):
    """Rewrites docstrings before their sections are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object once its docstring is known."""
        if obj.docstring is not None:
            obj.docstring.value = ENTRY.sub(_entries, obj.docstring.value)


def _entries(joint: re.Match[str]) -> str:
    return "\n".join(f"    {name}:{joint['text']}" for name in joint["names"].split(", "))
