"""The script behind `data/`: alignment by page and element, cutting into sentences, splitting by page."""

import lzma
import sys
from pathlib import Path

import pytest

from helpers.paths import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))
import build_corpora
from build_corpora import Row, aligned_sentences, fold, main, part_of, sentences, split_by_page


def page(body: str) -> str:
    return f'<html><body><p id="par_menu">Outside</p><div id="DisplayArea">{body}</div></body></html>'


@pytest.fixture
def unpacked(tmp_path) -> Path:
    texts = {
        "en-US/text/guide/one.html": """
            <h1 id="hd_1">Opening  a<br> document</h1>
            <p id="par_2">Choose <b>File</b>. Then <span class="switchinline"><span id="MAC">press Cmd</span>
              <span id="default1">press Ctrl</span></span> and wait.</p>
            <pre id="par_3">print "hello world"</pre>
            <p id="par_4">Only in English here.</p>""",
        "de/text/guide/one.html": """
            <p id="par_2">Wählen Sie <i>Datei</i>. Dann <span class="switchinline"><span id="MAC">drücken Sie
              Befehl</span><span id="default1">drücken Sie Strg</span></span> und warten.</p>
            <h1 id="hd_1">Ein Dokument öffnen</h1>
            <pre id="par_3">print "hallo Welt"</pre>""",
        "en-US/text/two.html": '<p id="par_2">This page has no translation.</p>',
    }
    texts |= {name.replace("de/", "fr/"): body for name, body in texts.items() if name.startswith("de/")}
    for name, body in texts.items():
        path = tmp_path / "unpacked" / build_corpora.HELP_FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(body), encoding="utf-8")
    return tmp_path / "unpacked"


def test_elements_of_the_same_id_become_sentence_pairs(unpacked, tmp_path):
    main(["--unpacked", str(unpacked), "--output", str(tmp_path)])
    name = f"libreoffice-help.en-de.{part_of('guide/one')}.tsv.xz"
    assert lzma.decompress((tmp_path / name).read_bytes()).decode().splitlines() == [
        "Opening a document\tEin Dokument öffnen\tguide/one",
        "Choose File.\tWählen Sie Datei.\tguide/one",
        "Then press Ctrl and wait.\tDann drücken Sie Strg und warten.\tguide/one",
    ]
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 6


def test_abbreviations_do_not_end_a_sentence():
    assert sentences("Use e.g. Calc. It opens... Slowly. (See below.) Über 3. Done") == [
        "Use e.g. Calc.",
        "It opens... Slowly.",
        "(See below.)",
        "Über 3. Done",
    ]


def test_unequal_sentence_counts_stay_whole():
    assert aligned_sentences("One. Two.", "Eins und zwei.") == [("One. Two.", "Eins und zwei.")]


def test_no_folded_source_is_in_two_parts():
    pages = [f"page{i}" for i in range(400)]
    rows = [
        Row(f"Press key {i % 90}, {'PLEASE' if i % 2 else 'please'}", f"t{i}", p) for i, p in enumerate(pages)
    ]
    rows += [
        Row(f"only here {'abcdefghij'[i % 10]}{p[-1]} {'x' * i}", f"u{i}", p) for i, p in enumerate(pages)
    ]
    parts = split_by_page([*rows, *rows])
    known: set[str] = set()
    for name in ("train", "valid", "test"):
        assert {part_of(row.page) for row in parts[name]} == {name}
        assert len(set(parts[name])) == len(parts[name])
        sources = {fold(row.source) for row in parts[name]}
        assert not sources & known
        known |= sources
    assert set(parts["train"]) == {row for row in rows if part_of(row.page) == "train"}
    # What only valid or test has, stays.
    assert {r for r in rows if r.source.startswith("only")} <= {r for part in parts.values() for r in part}
