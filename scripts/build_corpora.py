"""Rebuild the corpora in `data/` from Debian's packages of the LibreOffice help.

    python scripts/build_corpora.py                       # downloads with apt-get, writes data/
    python scripts/build_corpora.py --unpacked FOLDER     # packages already unpacked with `dpkg -x`

The help of every language has the same pages, and an element keeps its id in every translation, so two
elements are aligned when page and id agree. An element whose two sides have the same number of sentences is
cut into sentences. Pages, not sentences, are divided into train, valid and test, and the page alone
decides, so a page is on the same side in every language pair. The output is a pure function of the packages.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lxml import etree, html

PACKAGES = ("libreoffice-help-en-us", "libreoffice-help-de", "libreoffice-help-fr")
TARGET_LANGUAGES = ("de", "fr")
HELP_FOLDER = Path("usr/share/libreoffice/help")
# Of 1,000 pages, so many go to test and to valid: 1,000 to 1,300 sentences each. Under this salt, unlike
# under the empty one, no single page makes up a quarter of a part.
TEST_PERMILLE, VALID_PERMILLE, SALT = 40, 45, "1:"

LETTER = re.compile(r"[^\W\d_]")
ABBREVIATION = re.compile(
    r"(?:^|[\s(„\"«])(?:"
    r"e\.g|i\.e|etc|vs|cf|No|Nos|Fig|approx|resp|Inc|Ltd|ver|vol|pp|incl"
    r"|z\.\s?B|d\.\s?h|u\.\s?a|u\.\s?U|bzw|usw|vgl|ca|evtl|ggf|Nr|Abb|inkl|sog|bspw|i\.\s?d\.\s?R|s\.\s?[ou]"
    r"|c\.-à-d|p\.\s?ex|par ex|n°|env|fig|p|[A-Z]|\d{1,2})\.$"
)
SENTENCE_END = re.compile(r"(?<=[.!?])(?P<closing>[\"”“»)\]']*)\s+(?=[\"„“«(\[]?\s?[A-ZÄÖÜÀÂÉÈÊÎÔÇŒ])")
ENGLISH_WORD = re.compile(r"\b(the|of|is|and|to|with)\b")


class Row(NamedTuple):
    source: str
    target: str
    page: str


def main(arguments: list[str] | None = None) -> None:
    """Build every language pair, write the files and their checksums, print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--unpacked", type=Path, help="folder the three packages are unpacked in")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "data")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        unpacked = options.unpacked or download(Path(work))
        written = []
        for language in TARGET_LANGUAGES:
            parts = split_by_page(translated_sentences(unpacked / HELP_FOLDER, language))
            for name, rows in parts.items():
                path = options.output / f"libreoffice-help.en-{language}.{name}.tsv.xz"
                write_tsv(rows, path)
                written.append(path)
                pages = len({row.page for row in rows})
                print(f"{path.name}: {len(rows)} pairs, {pages} pages, {path.stat().st_size} bytes")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(written)]
    (options.output / "SHA256SUMS").write_text("".join(sums), encoding="ascii")


def download(folder: Path) -> Path:
    """Download the Debian packages with apt-get, unpack them below `folder`, print their versions."""
    subprocess.run(["apt-get", "-q", "download", *PACKAGES], cwd=folder, check=True, stdout=sys.stderr)
    for package in sorted(folder.glob("*.deb")):
        fields = ["dpkg-deb", "--show", "--showformat", "${Package} ${Version}\n", str(package)]
        subprocess.run(fields, check=True)
        subprocess.run(["dpkg", "-x", str(package), str(folder / "unpacked")], check=True)
    return folder / "unpacked"


def translated_sentences(help_folder: Path, language: str) -> Iterator[Row]:
    """Aligned, cleaned sentences of all pages both languages have, in the order of page and element."""
    english = help_folder / "en-US" / "text"
    translated = help_folder / language / "text"
    if not english.is_dir() or not translated.is_dir():
        raise SystemExit(f"{english} and {translated} must be folders: unpack {', '.join(PACKAGES)} there")
    for path in sorted(english.rglob("*.html")):
        page = path.relative_to(english)
        if not (translated / page).exists():
            continue
        sources, targets = elements(path), elements(translated / page)
        for key in (key for key in sources if key in targets):
            for source, target in aligned_sentences(sources[key], targets[key]):
                if is_translation(source, target):
                    yield Row(source, target, page.with_suffix("").as_posix())


def elements(path: Path) -> dict[str, str]:
    """The text of every paragraph and heading of a page by its id, program code left out."""
    root = html.parse(str(path), parser=html.HTMLParser(encoding="utf-8")).getroot()
    texts: dict[str, str] = {}
    for element in root.xpath('//*[@id="DisplayArea"]//*[starts-with(@id,"par_") or starts-with(@id,"hd_")]'):
        if element.tag not in ("pre", "code") and "code" not in element.get("class", ""):
            texts.setdefault(element.get("id"), clean("".join(visible_text(element))))
    return texts


def visible_text(element: etree._Element) -> Iterator[str]:
    """The pieces of text a reader sees; of wordings switched by application or system, one."""
    children = [child for child in element if isinstance(child.tag, str)]
    if "switchinline" in element.get("class", ""):
        defaults = [child for child in children if child.get("id", "").startswith("default")]
        for chosen in (defaults or children[-1:])[:1]:
            yield from visible_text(chosen)
        return
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str):
            yield from visible_text(child)
        yield child.tail or ""


def clean(text: str) -> str:
    """NFC, without soft hyphens and zero-width spaces, every run of white space one space."""
    text = unicodedata.normalize("NFC", text).replace("\u00ad", "").replace("\u200b", "")
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """Cut after `.`, `!` or `?` before a capital letter, unless an abbreviation or `...` ends there."""
    found, start = [], 0
    for match in SENTENCE_END.finditer(text):
        sentence = text[start : match.end("closing")]
        if ABBREVIATION.search(sentence.rstrip("\"”“»)]'")) or sentence.endswith("..."):
            continue
        found.append(sentence.strip())
        start = match.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def aligned_sentences(source: str, target: str) -> list[tuple[str, str]]:
    """Sentence pairs where both sides have as many sentences and of like lengths, else the whole."""
    sources, targets = sentences(source), sentences(target)
    growth = len(target) / max(1, len(source))
    if len(sources) == len(targets) and all(
        0.5 <= (len(t) + 5) / (len(s) + 5) / growth <= 2 for s, t in zip(sources, targets, strict=True)
    ):
        return list(zip(sources, targets, strict=True))
    return [(source, target)] if source and target else []


def is_translation(source: str, target: str) -> bool:
    """Whether the pair looks like prose and its translation: letters, lengths, not left in English."""
    source_words, target_words = len(source.split()), len(target.split())
    mostly_letters = all(
        len(LETTER.findall(text)) >= max(2, 0.5 * len(text.replace(" ", ""))) for text in (source, target)
    )
    return (
        1 <= source_words <= 120
        and 1 <= target_words <= 120
        and mostly_letters
        and fold(source) != fold(target)
        and len(ENGLISH_WORD.findall(target.lower())) < 3
        and 0.45 <= (len(target) + 6) / (len(source) + 6) <= 2.6
        and (source_words < 6 or 0.4 <= (target_words + 1) / (source_words + 1) <= 2.5)
    )


def fold(text: str) -> str:
    """The text without the differences that do not make a sentence new: case, digits, punctuation."""
    return re.sub(r"[\W_]+", " ", re.sub(r"\d+", "0", text.casefold())).strip()


def part_of(page: str) -> str:
    """`train`, `valid` or `test`: a salted hash of the page's name decides."""
    bucket = int(hashlib.sha256((SALT + page).encode()).hexdigest(), 16) % 1000
    if bucket < TEST_PERMILLE:
        return "test"
    return "valid" if bucket < TEST_PERMILLE + VALID_PERMILLE else "train"


def split_by_page(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Divide rows by page; drop repeated pairs, and from valid and test what an earlier part knows.

    A sentence of valid is dropped when its folded source occurs in train; one of test when it occurs in
    train or valid.
    """
    parts: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        part = part_of(row.page)
        if (part, row.source, row.target) not in seen:
            seen.add((part, row.source, row.target))
            parts[part].append(row)
    known: set[str] = set()
    for part, candidates in parts.items():
        parts[part] = [row for row in candidates if fold(row.source) not in known]
        known |= {fold(row.source) for row in parts[part]}
    return parts


def write_tsv(rows: list[Row], path: Path) -> None:
    """Write `source<TAB>target<TAB>page` lines, xz-compressed, the same bytes for the same rows."""
    text = "".join("\t".join(row) + "\n" for row in rows)
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
