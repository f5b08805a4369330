"""What is seen of a text stays, what is not goes: against Unicode's own data and a slow reference."""

import itertools
import sys
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automoe.data.normaliser import INVISIBLE, normalised

ZWNJ, ZWJ = "\u200c", "\u200d"
RESERVED = {0x2065, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)}  # invisible whatever they become
# Of category Cf, but seen: signs before numbers or words (Prepended_Concatenation_Mark), hieroglyphs' layout.
SEEN_FORMATS = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
SEEN_FORMATS |= set(range(0x13430, 0x13460))
INVISIBLE_NAMES = (
    "VARIATION SELECTOR",
    "HANGUL FILLER",
    "SEONG FILLER",
    "KHMER VOWEL INHERENT",
    "COMBINING GRAPHEME JOINER",
)


def is_invisible(character: str) -> bool:
    """Default_Ignorable_Code_Point as Unicode defines it, and the interlinear annotations."""
    if ord(character) in RESERVED:
        return True
    formats = unicodedata.category(character) == "Cf" and ord(character) not in SEEN_FORMATS
    name = unicodedata.name(character, "")
    return formats or any(part in name for part in (*INVISIBLE_NAMES, "MONGOLIAN FREE VARIATION"))


def is_space(character: str) -> bool:
    separators = unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc")
    return separators or character.isspace() or character in "\u2800▁"


def every_character() -> Iterator[str]:
    """All that this Python's Unicode knows, and what is reserved; no halves of surrogate pairs."""
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) not in ("Cs", "Cn") or code in RESERVED:
            yield chr(code)


def test_every_character_by_itself():
    characters = [character for character in every_character() if character != "|"]
    found = [text.strip(" ") for text in normalised("|".join(characters)).split("|")]
    assert len(found) == len(characters)
    wrong = [
        f"U+{ord(character):04X}"
        for character, text in zip(characters, found, strict=True)
        if text
        != ("" if is_invisible(character) or is_space(character) else unicodedata.normalize("NFC", character))
    ]
    assert wrong == []


def test_the_table_of_invisible_characters_is_sorted_and_apart():
    assert all(first <= last for first, last in INVISIBLE)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(INVISIBLE))


UNSEEN = [character for character in map(chr, range(0xFFFF)) if is_invisible(character)]


@given(st.text(st.sampled_from(UNSEEN), max_size=3), st.integers(0, 9))
def test_invisible_characters_anywhere_change_nothing(unseen, place):
    text = "Click OK."
    assert normalised(text[:place] + unseen + text[place:]) == text


@given(st.text(st.sampled_from([*UNSEEN, *" \t\n\x00\x7f\x85\xa0\u1680\u2003\u2028\u3000\u2800"])))
def test_a_text_of_nothing_seen_is_empty(text):
    assert normalised(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم نمی\u200cدانم کتاب\u200cها",  # Persian
        "مَ\u200cی",  # behind the sign of a vowel
        "क्\u200dष र\u094d\u200dय राम्\u200cरहीम",  # Hindi, Marathi's ra
        "অর্থ\u200cনীতি র\u200d্যাম",  # Bengali
        "അവന്\u200d",  # Malayalam: ends a word
        "ශ්\u200dරී ලංකා",  # Sinhala
        "ᠮᠣᠩᠭᠣᠯ\u180b ᠨ\u180eᠠ",  # Mongolian
        "👩\u200d💻 👩🏽\u200d🚀 👨\u200d👩\u200d👧",
        "Straße, naïve; don’t… “quoted” — 50 %",
    ],
)
def test_what_a_script_needs_stays(text):
    assert normalised(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("کتاب\u200c ها", "کتاب ها"),
        ("می\u200c\u200cخواهم", "می\u200cخواهم"),
        ("می\u200b\u200c\ufeffخواهم", "می\u200cخواهم"),
        ("Auf\u200clage", "Auflage"),
        ("\u200dOK", "OK"),
        ("漢\u200d字", "漢字"),
        ("❤\ufe0f", "❤"),
        ("e\u00ad\u0301te\u0301", "été"),
        ("a\ud800b", "a b"),
    ],
)
def test_what_it_does_not_need_goes(text, expected):
    assert normalised(text) == expected


SCRIPTS = ("ARABIC", "DEVANAGARI", "MALAYALAM")
LETTERS = "ابکم\u064eअकष\u093f\u094dനവ\u0d4d" + "abé\u0301漢ラд3.🙂👩🏽"


def reference(text: str) -> str:
    """Character by character: only where both neighbours are of a script that joins does a joiner stay."""

    def letter(character: str) -> bool:
        kind = unicodedata.category(character)[0] in "LM"
        return kind and unicodedata.name(character).startswith(SCRIPTS)

    seen = [character for character in text if character in (ZWNJ, ZWJ) or not is_invisible(character)]
    kept = []
    for place, character in enumerate(seen):
        if character in (ZWNJ, ZWJ):
            before = seen[place - 1] if place else " "
            after = next((c for c in seen[place:] if c not in (ZWNJ, ZWJ)), " ")
            virama = character == ZWJ and "VIRAMA" in unicodedata.name(before)
            pictures = character == ZWJ and before in "🙂👩🏽" and after in "🙂👩🏽"
            if not ((letter(before) and letter(after)) or virama or pictures):
                continue
        kept.append(" " if is_space(character) else character)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())


@given(st.text(st.sampled_from([*LETTERS, *" \t\u00a0", ZWNJ, ZWJ, ZWNJ, ZWJ, "\u200b", "\ufeff"])))
def test_joiners_as_a_slow_reference_keeps_them(text):
    assert normalised(text) == reference(text)


@given(st.text(st.one_of(st.characters(), st.sampled_from([*LETTERS, ZWNJ, ZWJ, "ᠠ", "\u180b", "\u034f"]))))
def test_twice_is_once(text):
    once = normalised(text)
    assert normalised(once) == once
