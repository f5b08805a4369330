"""The one exception for bad input, and the dataclasses whose fields pydantic checks.

The command line prints an `InputError` and exits with 2, no traceback.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import ErrorDetails

T = TypeVar("T")

_CHECKED = ConfigDict(strict=True, extra="forbid")
_WORDS = {
    "Input should be greater than or equal to ": "expected at least ",
    "Input should be less than or equal to ": "expected at most ",
    "Input should be greater than ": "expected more than ",
    "Input should be less than ": "expected less than ",
    "Input should be a valid integer": "expected a whole number",
    "Input should be a valid array": "expected a list",
    "Input should be a valid tuple": "expected a list",
    "Input should be an object": "expected keys and values",
    "Input should be a valid dictionary": "expected keys and values",
    "Input should be a valid ": "expected a ",
    "Input should be ": "expected ",
    "Value error, ": "",
}


class InputError(ValueError):
    """Something the user gave (a file, a recipe, a budget) cannot be used.

    A `ValueError`, so that one raised while pydantic validates a section of a larger whole is one of
    the problems of that whole, and the others are found too.

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


def checked(summary: str) -> Callable[[type[T]], type[T]]:
    """Decorate a frozen dataclass: pydantic checks its fields, strictly, whenever one is made.

    Rules across fields go into `__post_init__`, which runs when each field by itself is right and raises
    an `InputError`.

    Args:
        summary: of the `InputError` that wrong values given to the class raise. Inside another
            validation (a section of a recipe) they are problems of the whole instead.
    """

    def decorate(plain: type[T]) -> type[T]:
        made: Any = pydantic_dataclass(plain, config=_CHECKED, frozen=True)
        validate = made.__init__
        names = [field.name for field in fields(made)]

        @wraps(validate)
        def initialise(self: Any, *args: Any, **values: Any) -> None:
            if len(args) > len(names):
                raise TypeError(f"{plain.__name__} has {len(names)} fields, got {len(args)} values")
            try:
                # By name, so that a problem names its field.
                validate(self, **dict(zip(names, args, strict=False)), **values)
            except ValidationError as error:
                raise InputError(summary, problems_of(error)) from error

        made.__init__ = initialise
        made.__doc__ = plain.__doc__
        checked_class: type[T] = made
        return checked_class

    return decorate


def validate_plain(kind: type[T], plain: Any, summary: str) -> T:
    """A checked dataclass, or a pydantic model, from plain mappings, lists, numbers and texts.

    Args:
        plain: as read from YAML or JSON.
        summary: of the error.

    Raises:
        InputError: listing every unknown or missing key and every value that is wrong.
    """
    try:
        # By way of JSON, in whose strict mode a list is a tuple and a mapping an object.
        hashable: Any = kind
        validated: T = _adapter(hashable).validate_json(json.dumps(plain, default=str))
        return validated
    except ValidationError as error:
        raise InputError(summary, problems_of(error)) from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def problems_of(error: ValidationError) -> list[str]:
    """Every problem pydantic found: where, what, and what it got instead."""
    return [problem for details in error.errors() for problem in _sentences(details)]


def _sentences(details: ErrorDetails) -> Iterator[str]:
    where = _place(details["loc"])
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        for problem in cause.problems or (cause.summary,):
            yield _joined(where, problem)
    elif details["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        yield f"{where}: unknown key"
    elif details["type"] in ("missing", "missing_argument"):
        yield f"{where}: missing"
    else:
        text = details["msg"]
        for theirs, ours in _WORDS.items():
            if text.startswith(theirs):
                text = ours + text.removeprefix(theirs)
                break
        got = "" if isinstance(details["input"], Mapping) else f", got {details['input']!r:.60}"
        yield _joined(where, f"{text[:1].lower()}{text[1:]}{got}")


def _joined(where: str, problem: str) -> str:
    """`encoder[0]` and `top_k: too large` are `encoder[0].top_k: too large`."""
    field, colon, _ = problem.partition(":")
    names_a_field = bool(colon) and field.replace("_", "").replace(".", "").isalnum() and " " not in field
    if not where:
        return problem
    return f"{where}.{problem}" if names_a_field else f"{where}: {problem}"


def _place(loc: Sequence[str | int]) -> str:
    place = ""
    for part in loc:
        place += f"[{part}]" if isinstance(part, int) else f"{'.' if place else ''}{part}"
    return place
