"""TMX, the format of translation memories: a translation unit has one text a language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from automoe.data.text_file import opened
from automoe.errors import InputError

_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def tmx_texts(path: Path, source_language: str, target_language: str) -> Iterator[tuple[str, str]]:
    """The two texts of every translation unit, in order; one that a unit lacks is empty.

    A unit's text is that of its first variant in the language that has any: in exactly this one, else in
    one that is more or less specific (`en` finds `en-US`, and `en-US` finds `en`, but not `en-GB`). Case and
    the kind of hyphen do not matter. Tags of the original file's format are left out.

    Raises:
        InputError: the file cannot be read, is no TMX, or has no text in one of the languages; these are
            the same.
    """
    wanted = _plain(source_language), _plain(target_language)
    if wanted[0] == wanted[1]:
        raise InputError(f"{path}: both sides would be the same text", [f"both languages are {wanted[0]}"])
    found: Counter[str] = Counter()
    filled = [0, 0]
    with opened(path) as file:
        try:
            # Only entities of the file's own, and no more text of them than libxml2 thinks sound.
            units = etree.iterparse(file, tag="{*}tu", no_network=True, resolve_entities="internal")
            for _, unit in units:
                variants = [(_plain(_language(v)), v) for v in unit.iterchildren("{*}tuv")]
                found.update({language for language, _ in variants})
                texts = [_text_in(language, variants) for language in wanted]
                filled = [count + bool(text) for count, text in zip(filled, texts, strict=True)]
                yield texts[0], texts[1]
                _forget(unit)
            root = units.root
        except etree.XMLSyntaxError as error:
            raise InputError(f"{path}: is not TMX", [f"line {error.lineno}: {error.msg}"]) from error
    if etree.QName(root).localname != "tmx":
        raise InputError(f"{path}: is not TMX", [f"its first element is {etree.QName(root).localname}"])
    languages = ", ".join(f"{language or 'none'} {count:,}" for language, count in found.most_common())
    missing = [
        f"no text in {language}"
        for language, count in zip((source_language, target_language), filled, strict=True)
        if not count
    ]
    if missing:
        known = f"translation units by language: {languages or 'none'}"
        mend = "give the corpus its own source_language and target_language where the file calls them so"
        raise InputError(f"{path}: has not both languages", [*missing, known, mend])


def _plain(language: str) -> str:
    return language.strip().lower().replace("_", "-")


def _language(variant: Any) -> str:
    return str(variant.get(_LANGUAGE) or variant.get("lang") or "")  # `lang` until TMX 1.3


def _text_in(wanted: str, variants: list[tuple[str, Any]]) -> str:
    fitting = [
        (language != wanted, index, text)
        for index, (language, variant) in enumerate(variants)
        if language
        and (f"{language}-".startswith(f"{wanted}-") or f"{wanted}-".startswith(f"{language}-"))
        and (segment := variant.find("{*}seg")) is not None
        and (text := _text(segment)).strip()
    ]
    return min(fitting)[2] if fitting else ""


def _text(element: Any) -> str:
    """Of a segment, or of a part that is only highlighted: other elements hold codes, not text."""
    parts = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str) and etree.QName(child).localname == "hi":
            parts.append(_text(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _forget(unit: Any) -> None:
    """Free a unit and what was before it, so that memory does not grow with the file."""
    unit.clear()
    while unit.getprevious() is not None:
        del unit.getparent()[0]
