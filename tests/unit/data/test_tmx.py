"""TMX as a corpus: what the standard library writes reads back; XML's dangers are refused."""

import gzip
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from automoe.data.corpus import CorpusSource, Pair, load_pairs, load_whole
from automoe.errors import InputError

PAIRS = [
    Pair("A cat & a <dog>", "Eine Katze & ein <Hund>"),
    Pair("Click “OK”.", "Klicken Sie auf „OK“."),
    Pair("Yes", "Ja"),
]
HEADER = {"srclang": "en", "datatype": "plaintext", "segtype": "sentence", "adminlang": "en"}
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def tree(units: list[dict[str, str]]) -> ElementTree.ElementTree:
    """A memory with these units, each a text by language."""
    root = ElementTree.Element("tmx", version="1.4")
    ElementTree.SubElement(root, "header", HEADER)
    body = ElementTree.SubElement(root, "body")
    for unit in units:
        element = ElementTree.SubElement(body, "tu")
        for language, text in unit.items():
            variant = ElementTree.SubElement(element, "tuv", {LANGUAGE: language})
            ElementTree.SubElement(variant, "seg").text = text
    return ElementTree.ElementTree(root)


def written(path: Path, units: list[dict[str, str]], encoding: str = "utf-8") -> Path:
    tree(units).write(path, encoding=encoding, xml_declaration=True)
    return path


def source(path: Path, source_language: str = "en", target_language: str = "de") -> CorpusSource:
    return CorpusSource(path=str(path), source_language=source_language, target_language=target_language)


def load(path: Path, *languages: str) -> list[Pair]:
    return load_pairs(source(path, *languages))[0]


def refusal(path: Path, *languages: str) -> str:
    with pytest.raises(InputError) as caught:
        load(path, *languages)
    assert str(path) in str(caught.value)
    return str(caught.value)


UNITS = [{"en": pair.source, "de": pair.target} for pair in PAIRS]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-15", "us-ascii"])
def test_what_the_standard_library_writes_reads_back(tmp_path, encoding):
    path = written(tmp_path / "A.TMX", UNITS, encoding)
    assert load(path) == PAIRS
    assert load(path, "de", "en") == [Pair(pair.target, pair.source) for pair in PAIRS]
    compressed = tmp_path / "b.tmx.gz"
    compressed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert load(compressed) == PAIRS


def test_languages_are_found_in_any_spelling_the_exact_one_first(tmp_path):
    units = [
        {"EN-us": "colour, American", "en": "color", "de_DE": "Farbe", "fr": "couleur"},
        {"DE-AT": "Jänner", "en-GB": "January"},
    ]
    path = written(tmp_path / "a.tmx", units)
    assert load(path) == [Pair("color", "Farbe"), Pair("January", "Jänner")]
    assert load(path, "en-US", "DE") == [Pair("colour, American", "Farbe")]
    assert load(path, "en-AU", "fr") == [Pair("color", "couleur")]


def test_a_variant_without_text_does_not_hide_another_of_its_language(tmp_path):
    units = [{"en": "", "en-US": "color", "de": "  ", "de-AT": "Farbe"}, {"en": "Yes", "de": ""}]
    whole = load_whole(source(written(tmp_path / "a.tmx", units)))
    assert whole.pairs == [Pair("color", "Farbe"), Pair("Yes", "")]


def test_units_that_lack_a_language_keep_their_places(tmp_path):
    units = [UNITS[0], {"en": "No German"}, {"fr": "rien"}, UNITS[1]]
    whole = load_whole(source(written(tmp_path / "a.tmx", units)))
    assert whole.pairs == [PAIRS[0], Pair("No German", ""), Pair("", ""), PAIRS[1]]
    assert (whole.kept, whole.report.empty) == ([0, 3], 2)


def test_tags_of_the_original_format_are_no_text(tmp_path):
    path = tmp_path / "a.tmx"
    path.write_text(
        """<?xml version="1.0"?><!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="*all*"/><body><!-- a comment -->
<tu tuid="1"><note>not text</note><prop type="x">nor this</prop>
<tuv xml:lang="en"><prop type="y">nor that</prop><seg>Press <bpt>&lt;b&gt;</bpt>OK<ept>&lt;/b&gt;</ept>
or <hi type="key">Esc<!-- c -->ape</hi>, see <ph>&lt;img alt="<sub>a dog</sub>"/&gt;</ph>page&#160;5.</seg>
</tuv><tuv lang="de"><seg><![CDATA[Drücken & los]]></seg></tuv></tu></body></tmx>""",
        encoding="utf-8",
    )
    assert load(path) == [Pair("Press OK or Escape, see page 5.", "Drücken & los")]


def test_a_large_memory_is_read_whole(tmp_path):
    pairs = [Pair(f"sentence {number}", f"Satz {number}") for number in range(20_000)]
    path = written(tmp_path / "a.tmx", [{"en": pair.source, "de": pair.target} for pair in pairs])
    assert load(path) == pairs


def test_a_language_that_is_not_there_is_named_with_those_that_are(tmp_path):
    message = refusal(written(tmp_path / "a.tmx", UNITS), "en", "cs")
    assert "no text in cs" in message
    assert "en 3" in message
    assert "de 3" in message
    with pytest.raises(InputError, match="source_language"):
        load_pairs(CorpusSource(path=str(tmp_path / "a.tmx")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<tmx><body><tu>", "line 1"),
        ("\n\nno XML", "line 3"),
        ("", "no element"),
        ("<xliff><tu/></xliff>", "xliff"),
        ("<tmx/>", "no text in en"),
        ('<!DOCTYPE tmx [<!ENTITY x SYSTEM "file:///etc/hostname">]><tmx><tu>&x;</tu></tmx>', "'x'"),
        (
            "<!DOCTYPE tmx [<!ENTITY a0 'ha'>"
            + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
            + "]><tmx><tu><tuv xml:lang='en'><seg>&a9;</seg></tuv></tu></tmx>",
            "amplification",
        ),
    ],
)
def test_what_is_no_tmx_is_refused(tmp_path, text, expected):
    path = tmp_path / "a.tmx"
    path.write_text(text, encoding="utf-8")
    assert expected in refusal(path)
