"""The one exception for bad input: the command line prints it and exits with 2, no traceback."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(Exception):
    """Something the user gave (a file, a recipe, a budget) cannot be used.

    Args:
        summary: what is wrong, naming the file, line or field.
        problems: every problem found, one sentence each, with the mend where it is not obvious.
    """

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        super().__init__(summary, tuple(problems))
        self.summary = summary
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n  - ".join([self.summary, *self.problems])
