"""The one normaliser: what is seen of a text is what is trained on, translated, and counted.

It is made of steps of the library `tokenizers`, and stored in `tokenizer.json`. So whoever reads that file
(training, translation, the server, both exports) normalises alike, and a file of an earlier version goes on
as it was made.
"""

from __future__ import annotations

import re

from tokenizers import Regex, normalizers

WORD_START = "▁"

# Ranges of characters that show nothing: Unicode's Default_Ignorable_Code_Point and the interlinear
# annotations, without the joiners and Mongolian's selectors, which have rules of their own.
INVISIBLE = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x115F, 0x1160),  # fillers of Hangul
    (0x17B4, 0x17B5),  # inherent vowels of Khmer
    (0x200B, 0x200B),  # zero-width space
    (0x200E, 0x200F),  # marks of direction
    (0x202A, 0x202E),  # embeddings and overrides of direction
    (0x2060, 0x206F),  # word joiner, invisible operators, isolates of direction, deprecated controls
    (0x3164, 0x3164),  # filler of Hangul
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # byte-order mark
    (0xFFA0, 0xFFA0),  # halfwidth filler of Hangul
    (0xFFF0, 0xFFFB),  # reserved, and interlinear annotations
    (0x1BCA0, 0x1BCA3),  # controls of shorthand
    (0x1D173, 0x1D17A),  # controls of music
    (0xE0000, 0xE0FFF),  # tags, more variation selectors, reserved
)
_SELECTOR = r"[\x{180B}-\x{180F}]"  # of forms of Mongolian letters, and Mongolian's vowel separator
_MONGOLIAN_LETTER = r"[\p{Mongolian}&&\p{L}]"
_JOINER = r"[\x{200C}\x{200D}]"
# Letters of these never join their neighbours, and accents of all scripts (Inherited) are none. Between two
# others, or the vowel signs of Arabic, a joiner is spelling.
_UNJOINED = (
    r"\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Hebrew}\p{Ethiopic}\p{Cherokee}\p{Thai}\p{Lao}"
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}\p{Inherited}"
)
_JOINED_LETTER = rf"[[[\p{{L}}\p{{M}}]&&[^{_UNJOINED}]]\x{{64B}}-\x{{655}}\x{{670}}]"
# Takes away a consonant's vowel, in the scripts of India; a joiner behind it may end a word.
_VIRAMA = r"[\x{94D}\x{9CD}\x{A4D}\x{ACD}\x{B4D}\x{BCD}\x{C4D}\x{CCD}\x{D4D}]"
_PICTURE, _SKIN_TONE = r"\p{Extended_Pictographic}", r"\x{1F3FB}-\x{1F3FF}"
# Seen from behind a joiner. Of a run of joiners the first stays, where one is needed.
_NEEDED = (
    rf"(?<={_JOINED_LETTER}{_JOINER})(?={_JOINER}*{_JOINED_LETTER})"
    rf"|(?<={_VIRAMA}\x{{200D}})"
    rf"|(?<=[{_PICTURE}{_SKIN_TONE}]\x{{200D}})(?={_JOINER}*{_PICTURE})"
)
_SPACES = rf"[\s\p{{Cc}}\x{{2800}}{WORD_START}]+"  # an empty Braille cell is a space, too

_SURROGATE = re.compile("[\ud800-\udfff]")


def normaliser() -> normalizers.Normalizer:
    """The steps, for a new `tokenizer.json`; doing them twice changes nothing.

    What shows nothing is removed; of joiners (ZWJ, ZWNJ) those stay that a script or a picture needs. Letters
    are composed (NFC). Every run of white space and control characters becomes one space, and none is left at
    the ends.
    """
    invisible = "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in INVISIBLE)
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex(rf"[{invisible}]|{_SELECTOR}(?<!{_MONGOLIAN_LETTER}{_SELECTOR})"), ""),
            normalizers.Replace(Regex(rf"{_JOINER}(?!{_NEEDED})"), ""),
            normalizers.NFC(),
            normalizers.Replace(Regex(_SPACES), " "),
            normalizers.Strip(),
        ]
    )


_NORMALISER = normaliser()


def normalised(text: str) -> str:
    """A text as a new vocabulary reads it; empty when nothing of it can be seen.

    Halves of surrogate pairs, which JSON can spell and UTF-8 cannot, count as white space.
    """
    plain: str = _NORMALISER.normalize_str(_SURROGATE.sub(" ", text))
    return plain
