"""The one exception for bad input, and the dataclasses whose fields pydantic checks.

The command line prints an `InputError` and exits with 2, no traceback.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import date
from functools import cache, wraps
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import ErrorDetails

T = TypeVar("T")

# The kinds of numbers that users write.
AtLeastOne = Annotated[int, Field(ge=1)]
AtLeastZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

_CHECKED = ConfigDict(strict=True, extra="forbid")
# What pydantic calls a kind of problem, in the words of this package; others keep pydantic's own.
_WORDS = {
    "greater_than_equal": "expected at least {ge}",
    "less_than_equal": "expected at most {le}",
    "greater_than": "expected more than {gt}",
    "less_than": "expected less than {lt}",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "literal_error": "expected {expected}",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected keys and values",
    "dataclass_type": "expected keys and values",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "value_error": "{error}",
}
# `encoder[0].top_k: ...` names a field.
_FIELD = re.compile(r"[A-Za-z_]\w*(\.\w+|\[\d+\])*:")


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
        names = [field.name for field in fields(made) if not field.kw_only]

        @wraps(validate)
        def initialise(self: Any, *args: Any, **values: Any) -> None:
            if len(args) > len(names):
                known = f"takes {len(names)} values without their names"
                raise TypeError(f"{plain.__name__} {known}, got {len(args)}")
            try:
                # By name, so that a problem names its field.
                validate(self, **dict(zip(names, args, strict=False)), **values)
            except ValidationError as error:
                raise InputError(summary, problems_of(error, made)) from error

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
        InputError: listing every unknown or missing key and every value that is wrong; or, before these,
            what JSON cannot say, such as a date of YAML.
    """
    try:
        # By way of JSON, in whose strict mode a list is a tuple and a mapping an object.
        text = json.dumps(plain)
    except (TypeError, ValueError) as error:
        raise InputError(summary, list(_not_json(plain)) or [str(error)]) from error
    try:
        validated: T = _adapter(cast(type, kind)).validate_json(text, strict=True)
        return validated
    except ValidationError as error:
        raise InputError(summary, problems_of(error, kind)) from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _not_json(value: Any, loc: tuple[str | int, ...] = (), within: tuple[int, ...] = ()) -> Iterator[str]:
    """What YAML can say and JSON cannot; `within`: the ids of the values around this one."""
    where = _place(loc)
    if id(value) in within:
        yield _joined(where, "contains itself")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _not_json(inner, (*loc, key), (*within, id(value)))
            else:
                yield _joined(where, f"expected text as a key, got {key} ({type(key).__name__})")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _not_json(inner, (*loc, index), (*within, id(value)))
    elif isinstance(value, date):
        yield _joined(where, f"got the date {value}; if it is text, write it in quotes")
    elif not isinstance(value, str | int | float | None):
        yield _joined(where, f"expected text or a number, got {value!r:.60}")


def problems_of(error: ValidationError, kind: Any) -> list[str]:
    """Every problem pydantic found: where, what, and what it got instead.

    Args:
        kind: what was validated, a model of pydantic or a checked dataclass.
    """
    found = error.errors()
    return [
        problem
        for details in found
        if not _follows(details, found)
        for problem in _sentences(details, _fields_at(kind, details["loc"]))
    ]


def _fields_at(kind: Any, loc: Sequence[str | int]) -> Mapping[str, Any]:
    """By name, the fields that there are beside the last part of a place."""
    found = _fields_of(kind)
    for part in loc[:-1]:
        if part in found:  # not an index, nor the key of a mapping
            found = _fields_of(found[str(part)].annotation)
    return found


def _fields_of(annotation: Any) -> Mapping[str, Any]:
    """Of the one class that an annotation such as `tuple[Layer, ...] | None` names; none of others."""
    own: Mapping[str, Any] | None = getattr(annotation, "__pydantic_fields__", None)
    if own is not None:
        return own
    inner = [found for part in get_args(annotation) if (found := _fields_of(part))]
    return inner[0] if len(inner) == 1 else {}


def _follows(details: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """Whether a list is too short only because entries of it are wrong, which is said of them."""
    place = details["loc"]
    return details["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in found
    )


def _sentences(details: ErrorDetails, known: Iterable[str]) -> Iterator[str]:
    where, kind, context = _place(details["loc"]), details["type"], details.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, InputError):
        for problem in cause.problems or (cause.summary,):
            yield _joined(where, problem)
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        names = ", ".join(known)
        yield f"{where}: unknown key" + (f" (known: {names})" if names else "")
    elif kind in ("missing", "missing_argument"):
        yield f"{where}: missing"
    elif kind == "too_short":
        least = context["min_length"]
        yield _joined(where, f"expected at least {least} {'entry' if least == 1 else 'entries'}")
    else:
        shown = {name: _number(value) for name, value in context.items()}
        text = _WORDS[kind].format_map(shown) if kind in _WORDS else details["msg"]
        got = "" if isinstance(details["input"], Mapping) else f", got {details['input']!r:.60}"
        yield _joined(where, f"{text[:1].lower()}{text[1:]}{got}")


def _number(value: Any) -> Any:
    """A whole number without its `.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _joined(where: str, problem: str) -> str:
    """`encoder[0]` and `top_k: too large` are `encoder[0].top_k: too large`."""
    if not where:
        return problem
    return f"{where}.{problem}" if _FIELD.match(problem) else f"{where}: {problem}"


def _place(loc: Sequence[str | int]) -> str:
    place = ""
    for part in loc:
        place += f"[{part}]" if isinstance(part, int) else f"{'.' if place else ''}{part}"
    return place
