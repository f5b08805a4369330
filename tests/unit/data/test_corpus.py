"""Corpora: every kind of file gives the same pairs, bad files are explained, the shipped ones are sound."""

import bz2
import functools
import gzip
import hashlib
import json
import lzma
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from automoe.data.corpus import CorpusLimits, CorpusSource, Pair, load_pairs, load_whole
from automoe.errors import InputError
from helpers.paths import CORPORA

DATA = CORPORA
PAIRS = [Pair("A cat.", "Eine Katze."), Pair("Über 100 “dogs”", "Mehr als 100 „Hunde“"), Pair("Yes", "Ja")]
TEXTS = [(pair.source, pair.target) for pair in PAIRS]
ROWS = [{"source": pair.source, "target": pair.target} for pair in PAIRS]
TRANSLATIONS = [{"translation": {"en": pair.source, "de": pair.target}} for pair in PAIRS]
EN_DE = {"source_language": "en", "target_language": "de"}


def load(**source) -> list[Pair]:
    return load_pairs(CorpusSource(**source))[0]


def refusal(**source) -> str:
    with pytest.raises(InputError) as caught:
        load(**source)
    return str(caught.value)


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def tsv(pairs: list[Pair]) -> bytes:
    return "".join(f"{pair.source}\t{pair.target}\n" for pair in pairs).encode()


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstandard(content: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(content, asbytes=True)


COMPRESSED = {
    ".gz": gzip.compress(tsv(PAIRS), mtime=0),
    ".xz": lzma.compress(tsv(PAIRS)),
    ".bz2": bz2.compress(tsv(PAIRS)),
    ".zst": zstandard(tsv(PAIRS)),
    # Several members behind each other, as tools that work in parallel write them.
    ".tsv.gz": gzip.compress(tsv(PAIRS[:1]), mtime=0) + gzip.compress(tsv(PAIRS[1:]), mtime=0),
    ".tsv.bz2": bz2.compress(tsv(PAIRS[:1])) + bz2.compress(tsv(PAIRS[1:])),
    ".tsv.xz": lzma.compress(tsv(PAIRS[:1])) + lzma.compress(tsv(PAIRS[1:])),
    ".tsv.zst": b"\x50\x2a\x4d\x18\x02\x00\x00\x00ab" + zstandard(tsv(PAIRS[:1])) + zstandard(tsv(PAIRS[1:])),
}


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("suffix", COMPRESSED)
def test_compressed_files_are_read_whatever_the_case_of_their_names(tmp_path, suffix, upper):
    name = f"a.en-de.tsv{suffix}" if suffix.count(".") == 1 else f"b{suffix}"
    path = write(tmp_path / (name.upper() if upper else name), COMPRESSED[suffix])
    assert load(path=path) == PAIRS


def test_compressed_text_files_are_read(tmp_path):
    sources, targets = ("".join(f"{text}\n" for text in side).encode() for side in zip(*TEXTS, strict=True))
    source = write(tmp_path / "train.en.BZ2", bz2.compress(sources))
    target = write(tmp_path / "train.de.zst", zstandard(targets))
    assert load(source_path=source, target_path=target) == PAIRS


@pytest.mark.parametrize("content", COMPRESSED.values())
def test_a_compressed_file_without_its_suffix_is_read_too(tmp_path, content):
    assert load(path=write(tmp_path / "a.tsv", content)) == PAIRS


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
SCRIPTS = {
    "de": "Über 100 „Hunde“",
    "ru": "Нажмите кнопку ОК, чтобы сохранить",
    "el": "Κάντε κλικ στο ΟΚ",
    "zh": "点击“确定”按钮以保存文件。",
    "ja": "「OK」をクリックしてファイルを保存します。",
    "ko": "확인을 클릭하여 파일을 저장하십시오.",
    "th": "คลิกตกลงเพื่อบันทึกไฟล์",
    "hi": "फ़ाइल सहेजने के लिए ठीक पर क्लिक करें।",
    "pa": "ਫਾਈਲ ਸੁਰੱਖਿਅਤ ਕਰਨ ਲਈ",
    "ar": "انقر فوق موافق لحفظ الملف",
    "my": "ဖိုင်ကိုသိမ်းရန်နှိပ်ပါ",
    "emoji": "👍🏽 fine 𝒳",
}


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("language", SCRIPTS)
def test_the_encodings_of_unicode_are_told_apart(tmp_path, language, encoding, mark):
    text = SCRIPTS[language]
    pairs = [Pair("Click OK to save the file.", text), Pair(text, "Save"), Pair(f"a {text}", text)]
    start = "\ufeff" if mark and not encoding.endswith(("sig", "16", "32")) else ""
    rows = start + "".join(f"{pair.source}\t{pair.target}\r\n" for pair in pairs)
    path = write(tmp_path / "a.tsv.gz", gzip.compress(rows.encode(encoding), mtime=0))
    assert load(path=path) == pairs
    sides = [[pair.source for pair in pairs], [pair.target for pair in pairs]]
    sides[0][1] += " \u2028\x0b\x0c\x85\u2029 "  # no ends of lines
    source, target = (
        write(tmp_path / str(number), "\n".join([*side, ""]).encode(encoding))
        for number, side in enumerate(sides)
    )
    assert load(source_path=source, target_path=target) == pairs
    objects = [{"source": pair.source, "target": pair.target} for pair in pairs]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects)
    assert load(path=write(tmp_path / "a.jsonl", lines.encode(encoding))) == pairs


def test_a_long_file_in_utf_16_is_read_to_its_end(tmp_path):
    pairs = [Pair(f"Zeile {number} 𝒳", f"行{number}") for number in range(30_000)]
    path = write(tmp_path / "a.tsv", tsv(pairs).decode().encode("utf-16-le"))
    assert load(path=path) == pairs


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("damage", [b"\n", b"\x00\xdc\xdc\x00"])
def test_damaged_utf_16_is_refused_by_its_name(tmp_path, encoding, damage):
    content = tsv(PAIRS * 5000).decode().encode(encoding)
    for place in (len(content), 100_000):
        path = write(tmp_path / "a.tsv", content[:place] + damage + content[place:])
        message = refusal(path=path)
        assert "invalid UTF-16" in message
        (line,) = re.findall(r"line (\d+) or after", message)
        assert int(line) <= 15_001


def test_stray_control_characters_do_not_make_it_utf_16(tmp_path):
    assert load(path=write(tmp_path / "a.tsv", "a\x00b\x07\x08c\td e\n")) == [Pair("a b c", "d e")]


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.tsv", tsv(PAIRS))
    for number, side in enumerate(zip(*TEXTS, strict=True)):
        write(tmp_path / str(number), "\n".join(side))
    assert load(path="~/a.tsv") == PAIRS
    assert load(source_path="~/0", target_path="~/1") == PAIRS


def test_every_kind_of_file_gives_the_same_pairs(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    files = {
        "a.tsv": tsv(PAIRS),
        "a.tsv.xz": lzma.compress(tsv(PAIRS)),
        "a.en-de.tsv.gz": gzip.compress(tsv(PAIRS), mtime=0),
        "windows.tsv": b"\xef\xbb\xbf" + tsv(PAIRS).replace(b"\n", b"\r\n"),
        "a.jsonl": jsonl(ROWS),
        "a.jsonl.gz": gzip.compress(jsonl(ROWS), mtime=0),
    }
    for name, content in files.items():
        write(tmp_path / name, content)
    for name in (*files, "a.parquet"):
        assert load(path=str(tmp_path / name)) == PAIRS, name
    source = write(tmp_path / "a.en", "".join(pair.source + "\n" for pair in PAIRS))
    target = write(tmp_path / "a.de", "".join(pair.target + "\n" for pair in PAIRS))
    assert load(source_path=source, target_path=target) == PAIRS


def test_columns_by_name_and_by_position(tmp_path):
    rows = [[str(i), pair.target, f"doc{i}", pair.source] for i, pair in enumerate(PAIRS)]
    headless = write(tmp_path / "a.tsv", "".join("\t".join(row) + "\n" for row in rows))
    assert load(path=headless, source_column=3, target_column=1) == PAIRS
    named = write(tmp_path / "b.tsv", "id\tde\tdocument\ten\n" + Path(headless).read_text())
    documented = [Pair(pair.source, pair.target, f"doc{i}") for i, pair in enumerate(PAIRS)]
    assert load(path=named, source_column="en", target_column="de") == documented
    objects = [dict(zip(("id", "de", "document", "en"), row, strict=True)) for row in rows]
    for columns in ({"source_column": "en", "target_column": "de"}, {"source_column": 3, "target_column": 1}):
        assert load(path=write(tmp_path / "c.jsonl", jsonl(objects)), **columns) == documented
    translations = write(tmp_path / "wmt.jsonl", jsonl(TRANSLATIONS))
    assert load(path=translations, **EN_DE) == PAIRS
    message = refusal(path=named, source_column="en", target_column="fr")
    assert "'fr'" in message
    assert "'de'" not in message


def test_the_third_column_is_the_document(tmp_path):
    path = write(tmp_path / "a.tsv", "a\tb\tpage 1\nc\td\tpage 2\n")
    assert load(path=path) == [Pair("a", "b", "page 1"), Pair("c", "d", "page 2")]


def test_a_corpus_that_datasets_knows(tmp_path, monkeypatch):
    # `datasets` takes a folder for a name, which needs no network.
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "wmt"
    folder.mkdir()
    write(folder / "train.jsonl", jsonl(TRANSLATIONS))
    assert load(dataset=str(folder), split="train", **EN_DE) == PAIRS
    message = refusal(dataset=str(folder), split="train", source_language="en", target_language="cs")
    assert "cs" in message
    assert "no text" in message
    assert "missing-corpus" in refusal(dataset=str(tmp_path / "missing-corpus"), split="train", **EN_DE)


def test_unusable_pairs_are_dropped_and_counted(tmp_path):
    lines = [
        "kept\tbehalten",
        "",
        "  \tnur Ziel",
        "nothing\t",
        "x" * 100_000 + "\tlang",
        "a" * 90 + "\t!",
        "a\x00b\x07\ta \u2028b",
        "only \u00a0  spaces\tnur\u3000Abstand",
    ]
    pairs, report = load_pairs(CorpusSource(path=write(tmp_path / "a.tsv", "\n".join(lines))))
    assert pairs == [Pair("kept", "behalten"), Pair("a b", "a b"), Pair("only spaces", "nur Abstand")]
    assert (report.kept, report.empty, report.too_long, report.unequal, report.cleaned) == (3, 3, 1, 1, 1)
    assert load_pairs(CorpusSource(path=str(tmp_path / "a.tsv")), CorpusLimits(max_characters=4))[1].kept == 1


def test_a_whole_corpus_keeps_the_places_of_dropped_pairs(tmp_path):
    rows = [
        ("kept", "behalten"),
        ("", "only a target"),
        ("only a source", None),
        ("x" * 30, "too long"),
        ("one\ntwo\r\nthree\u2028four\x85five\x0bsix", "eins\nzwei\u3000drei\x0c vier"),
        ("a" * 19, "!"),
        ("last", " zu\u00a0letzt "),
    ]
    objects = [{"source": source, "target": target} for source, target in rows]
    path = write(tmp_path / "a.jsonl", jsonl(objects))
    limits = CorpusLimits(max_characters=28, max_length_ratio=2)
    whole = load_whole(CorpusSource(path=path), limits)
    assert [pair.source for pair in whole.pairs] == [" ".join(source.split()) for source, _ in rows]
    assert whole.references == [
        "behalten", "only a target", "", "too long", "eins zwei\u3000drei  vier", "!", " zu\u00a0letzt "
    ]  # fmt: skip
    assert whole.kept == [0, 4, 6]
    assert ([whole.pairs[k] for k in whole.kept], whole.report) == load_pairs(CorpusSource(path=path), limits)
    assert str(whole.report) == (
        "3 of 7 pairs (dropped: 2 with an empty side, 1 over limits.max_characters, "
        "1 over limits.max_length_ratio)"
    )


def test_a_side_that_shows_nothing_is_empty_and_the_rest_is_cleaned(tmp_path):
    unseen = "\ufeff\u200b\u00ad\u200e\u202e\u2060\u200d\u034f\ufe0f\u3164 \u2800"
    lines = [f"{unseen}\tText", f"text\t{unseen}", f"\ufeffClick{unseen}\tmi\u00adt", "ok\tمی\u200cخواهم"]
    pairs, report = load_pairs(CorpusSource(path=write(tmp_path / "a.tsv", "\n".join(lines))))
    assert pairs == [Pair("Click", "mit"), Pair("ok", "می\u200cخواهم")]
    assert (report.kept, report.empty, report.cleaned) == (2, 2, 1)


def test_half_a_surrogate_pair_is_cleaned(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"source": "a\\ud800b", "target": "ab"}\n')
    assert load(path=path) == [Pair("a b", "ab")]


def test_every_bad_line_is_named_up_to_ten(tmp_path):
    rows = [b"good\tgut"] * 40
    for line in (3, 7):
        rows[line - 1] = b"caf\xe9\tKaffee"
    rows[11] = b"one column"
    message = refusal(path=write(tmp_path / "a.tsv", b"\n".join(rows)))
    assert "a.tsv" in message
    assert re.findall(r"- line (\d+)", message) == ["3", "7", "12"]
    assert "UTF-8" in message
    assert "1 columns" in message
    message = refusal(path=write(tmp_path / "b.tsv", b"good\tgut\n" + b"\xff\n" * 25))
    assert re.findall(r"- line (\d+)", message) == [str(line) for line in range(2, 12)]
    assert "15 more" in message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lines_that_end_in_a_carriage_return_alone_are_refused(tmp_path, encoding):
    content = "a\tb\rc\td\re\tf\r".encode(encoding)
    assert "carriage return" in refusal(path=write(tmp_path / "a.tsv", content))
    assert "carriage return" in refusal(path=write(tmp_path / "a.tsv.gz", gzip.compress(content, mtime=0)))


def test_a_carriage_return_within_a_line_is_a_space(tmp_path):
    path = write(tmp_path / "a.tsv", "a\rb\tc\r\nd\te")
    assert load(path=path) == [Pair("a b", "c"), Pair("d", "e")]
    assert load(path=write(tmp_path / "b.tsv", "a\tb\r")) == [Pair("a", "b")]


@pytest.mark.parametrize("encoding", ["latin-1", "gb18030", "shift-jis", "cp1251"])
def test_text_in_another_encoding_is_refused_with_how_to_convert_it(tmp_path, encoding):
    text = {"latin-1": "Öl\tétoile", "cp1251": "мир\tсвет"}.get(encoding, "日本\t中国")
    message = refusal(path=write(tmp_path / "a.tsv", f"{text}\n".encode(encoding)))
    assert "line 1: invalid UTF-8" in message
    assert "iconv" in message


def test_columns_that_change_are_refused(tmp_path):
    message = refusal(path=write(tmp_path / "a.tsv", "a\tb\nc\td\te\nf\tg\n"))
    assert re.findall(r"- line (\d+)", message) == ["2"]


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ('{"source": "a", "target": "b"}\nnonsense\n\n[1]\n{"source": 5, "target": "b"}\n', ["2", "4", "5"]),
        ('{"source": "a", "target": "b"}\n{"source": "a"}\n', ["2"]),
        ('{"source": "a", "target": "b"}\n' + 10_000 * "[" + "\n" + 10_000 * '{"a":' + "\n", ["2", "3"]),
    ],
)
def test_bad_json_lines_are_named(tmp_path, rows, lines):
    assert re.findall(r"- line (\d+)", refusal(path=write(tmp_path / "a.jsonl", rows))) == lines


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl"])
def test_positions_of_columns_count_from_0(tmp_path, name):
    message = refusal(path=write(tmp_path / name, "a\tb\n"), source_column=0, target_column=-2)
    assert "target_column: expected a name or a position from 0, got -2" in message


def test_a_missing_text_is_an_empty_one(tmp_path):
    rows = [*ROWS, {"source": "a", "target": None}]
    pairs, report = load_pairs(CorpusSource(path=write(tmp_path / "a.jsonl", jsonl(rows))))
    assert pairs == PAIRS
    assert report.empty == 1


def test_sides_of_different_length_are_refused_with_both_lengths(tmp_path):
    source = write(tmp_path / "a.en", "one\ntwo\nthree\n")
    message = refusal(source_path=source, target_path=write(tmp_path / "a.de", "eins\nzwei\n"))
    assert "3 lines" in message
    assert "2 lines" in message
    # Only a line feed ends a line: other separators inside a sentence must not shift the sides.
    source = write(tmp_path / "b.en", "one\x0b\u2028\x85more\ntwo\n")
    target = write(tmp_path / "b.de", "eins und mehr\nzwei\n")
    assert [pair.target for pair in load(source_path=source, target_path=target)] == ["eins und mehr", "zwei"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.tsv", None),
        ("missing.parquet", None),
        ("truncated.tsv.xz", lzma.compress(tsv(PAIRS))[:-20]),
        ("truncated.tsv.gz", gzip.compress(tsv(PAIRS), mtime=0)[:-12]),
        ("foreign.tsv.xz", b"not xz"),
        ("foreign.tsv.gz", b"not gzip"),
        ("foreign.parquet", b"not parquet"),
        ("truncated.tsv.bz2", bz2.compress(tsv(PAIRS))[:-9]),
        ("truncated.tsv.zst", zstandard(tsv(PAIRS))[:-9]),
        ("foreign.tsv.bz2", b"not bzip2"),
        ("foreign.TSV.ZST", tsv(PAIRS)),
        ("empty.tsv.gz", b""),
        ("unknown.csv.gz", gzip.compress(tsv(PAIRS), mtime=0)),
        ("empty.tsv", b""),
        ("blank.jsonl", b"\n\n"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content):
    if content is not None:
        write(tmp_path / name, content)
    assert name in refusal(path=str(tmp_path / name))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "exactly one"),
        ({"path": "a.tsv", "dataset": "wmt14", "split": "train"}, "exactly one"),
        ({"source_path": "a.en"}, "target_path"),
        ({"dataset": "wmt14"}, "split"),
        ({"path": "a.jsonl", "source_column": "en"}, "target_column"),
        ({"path": "a.tsv", "source_column": "en", "target_column": 1}, "two names or two positions"),
        ({"path": "a.tsv", "source_language": "en"}, "target_language"),
        (
            {"path": "a.tsv", "source_column": 1, "target_column": 1},
            "source_column and target_column: both are 1",
        ),
        ({"source_path": "a.en", "target_path": "a.en"}, "source_path and target_path: both are 'a.en'"),
        (
            {"source_path": "a", "target_path": "b", "source_column": 1, "target_column": 0},
            "two text files have no columns",
        ),
        ({"path": "a.tsv", "config": "de-en", "split": "test"}, "config: .*\n.*split: means nothing"),
    ],
)
def test_an_impossible_source_is_refused(fields, expected):
    with pytest.raises(InputError, match=expected):
        CorpusSource(**fields)


def test_impossible_limits_are_refused():
    with pytest.raises(InputError, match="max_characters"):
        CorpusLimits(max_characters=0)


def test_a_corpus_of_three_sentences_loads(tmp_path):
    assert len(load(path=write(tmp_path / "a.tsv", tsv(PAIRS)))) == 3


# The shipped corpora


@functools.cache
def shipped(language: str, part: str) -> list[Pair]:
    return load(path=str(DATA / f"libreoffice-help.en-{language}.{part}.tsv.xz"))


def folded(pair: Pair) -> str:
    return re.sub(r"\d", "0", pair.source.lower())


def test_the_checksums_hold():
    lines = (DATA / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(sums) == {path.name for path in DATA.glob("*.tsv.xz")}
    assert len(sums) == 6
    for name, digest in sums.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(("language", "expected"), [("de", 43_000), ("fr", 41_000)])
def test_shipped_corpora_are_split_by_page_without_leaks(language, expected):
    parts = {part: shipped(language, part) for part in ("train", "valid", "test")}
    total = sum(map(len, parts.values()))
    assert abs(total - expected) < 300
    assert f"{total:,}" in (DATA / "README.md").read_text()
    assert all(1000 <= len(parts[part]) <= 1500 for part in ("valid", "test"))
    pages = {part: {pair.document for pair in pairs} for part, pairs in parts.items()}
    assert "" not in set.union(*pages.values())
    assert sum(map(len, pages.values())) == len(set.union(*pages.values()))
    sources = {part: {folded(pair) for pair in pairs} for part, pairs in parts.items()}
    assert not sources["valid"] & sources["train"]
    assert not sources["test"] & (sources["train"] | sources["valid"])
    for part, pairs in parts.items():
        assert len(set(pairs)) == len(pairs), part
    files = DATA.glob(f"libreoffice-help.en-{language}.*")
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_a_page_is_in_the_same_part_in_both_languages():
    for part, other in (("train", "test"), ("train", "valid"), ("valid", "test")):
        for one, two in ((part, other), (other, part)):
            german = {pair.document for pair in shipped("de", one)}
            french = {pair.document for pair in shipped("fr", two)}
            assert not german & french
