"""Columns beside the texts: they do no harm, and are told; what may be either text is refused."""

import csv
import io
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from automoe.data.corpus import CorpusSource, LoadReport, Pair, load_pairs, load_whole
from automoe.data.corpus_rows import MOST_NAMED
from automoe.errors import InputError

PAIRS = [Pair("A cat.", "Eine Katze.", "page 1"), Pair("Two dogs.", "Zwei Hunde.", "page 2")]
METADATA = [{"id": 7, "domain": "pets", "score": 0.5}, {"id": 8, "domain": None, "score": None}]
EN_DE = {"source_language": "en", "target_language": "de"}
NAMED = {"source_column": "source", "target_column": "target"}


def texts(pair: Pair) -> dict[str, Any]:
    return {"source": pair.source, "target": pair.target, "document": pair.document}


ROWS = [texts(pair) | more for pair, more in zip(PAIRS, METADATA, strict=True)]


def jsonl(path: Path, rows: list[dict[str, Any]] | str) -> str:
    lines = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")
    return str(path)


def tsv(path: Path, rows: list[list[str]]) -> str:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def parquet(path: Path, rows: list[dict[str, Any]]) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def unused(**source: Any) -> tuple[str, ...]:
    """Told of a corpus of PAIRS."""
    pairs, report = load_pairs(CorpusSource(**source))
    assert pairs == PAIRS
    assert load_whole(CorpusSource(**source)).report == report
    return report.unused


def refusal(**source: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        load_pairs(CorpusSource(**source))
    return caught.value


@pytest.mark.parametrize("columns", [{}, NAMED])
def test_metadata_is_told_once_a_file_and_changes_nothing(tmp_path, columns):
    assert unused(path=jsonl(tmp_path / "a.jsonl", ROWS), **columns) == ("id", "domain", "score")
    assert unused(path=parquet(tmp_path / "a.parquet", ROWS), **columns) == ("id", "domain", "score")
    plain = [texts(pair) for pair in PAIRS]
    assert unused(path=jsonl(tmp_path / "b.jsonl", plain), **columns) == ()
    assert unused(path=parquet(tmp_path / "b.parquet", plain), **columns) == ()


def test_so_is_that_of_a_corpus_that_datasets_knows(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "named").mkdir()
    jsonl(tmp_path / "named" / "train.jsonl", ROWS)
    assert unused(dataset=str(tmp_path / "named"), split="train") == ("id", "domain", "score")


def test_so_are_further_columns_of_a_tsv_file(tmp_path):
    rows = [[str(value) for value in row.values()] for row in ROWS]
    path = tsv(tmp_path / "a.tsv", rows)
    assert unused(path=path) == ("column 3 (from 0)", "column 4 (from 0)", "column 5 (from 0)")
    headed = tsv(tmp_path / "b.tsv", [list(ROWS[0]), *rows])
    assert unused(path=headed, **NAMED) == ("id", "domain", "score")
    assert unused(path=tsv(tmp_path / "c.tsv", [row[:3] for row in rows])) == ()
    pairs, report = load_pairs(CorpusSource(path=path, source_column=1, target_column=0))
    assert pairs[0] == Pair("Eine Katze.", "A cat.")  # a document only where it goes without saying
    assert report.unused[0] == "column 2 (from 0)"
    nameless = tsv(tmp_path / "d.tsv", [["source", "target", "document", ""], *(row[:5] for row in rows)])
    assert unused(path=nameless, **NAMED) == ("column 3 (from 0)", "column 4 (from 0)")


def test_a_key_of_a_later_row_is_told_and_not_too_many_are(tmp_path):
    rows = [*ROWS, texts(PAIRS[0]) | {"late": 1}]
    _, report = load_pairs(CorpusSource(path=jsonl(tmp_path / "a.jsonl", rows)))
    assert report.unused == ("id", "domain", "score", "late")
    assert report.not_used == "not used: id, domain, score, late"
    rows = [texts(PAIRS[0]) | {f"key {number}": number} for number in range(3 * MOST_NAMED)]
    _, report = load_pairs(CorpusSource(path=jsonl(tmp_path / "a.jsonl", rows)))
    assert len(report.unused) == MOST_NAMED
    assert report.not_used is not None
    assert report.not_used.endswith(f"key 8, key 9 and {MOST_NAMED - 10} more")


def test_a_report_is_the_same_from_json(tmp_path):
    report = LoadReport(kept=1, empty=2, too_long=3, unequal=4, cleaned=5, unused=("id",))
    plain = {"kept": 1, "empty": 2, "too_long": 3, "unequal": 4, "cleaned": 5, "unused": ["id"]}
    assert LoadReport.from_plain(plain) == report
    del plain["unused"]  # as written by earlier versions
    assert LoadReport.from_plain(plain).not_used is None


def translations(**more: Any) -> list[dict[str, Any]]:
    rows = [{"translation": {"en": pair.source, "de": pair.target, "fr": "chat"}} for pair in PAIRS]
    return [{**row, "document": pair.document, **more} for row, pair in zip(rows, PAIRS, strict=True)]


@pytest.mark.parametrize("write", [jsonl, parquet])
def test_a_third_language_of_a_translation_is_told(tmp_path, write):
    path = write(tmp_path / f"a.{write.__name__}", translations(id=1))
    assert unused(path=path, **EN_DE) == ("translation.fr", "id")
    named = {"source_column": "translation.en", "target_column": "translation.de"}
    assert unused(path=path, **named) == ("translation.fr", "id")


@pytest.mark.parametrize("write", [jsonl, parquet])
@pytest.mark.parametrize("languages", [EN_DE, {}])
@pytest.mark.parametrize("beside", [{"source": "corpus A"}, {"source": "S", "target": "T"}])
def test_a_translation_beside_a_source_is_refused_and_both_ways_out_work(tmp_path, write, languages, beside):
    path = write(tmp_path / f"a.{write.__name__}", translations(**beside))
    found = refusal(path=path, **languages)
    assert found.summary.startswith(f"{path}: ")
    assert f"has a translation and {' and '.join(beside)}, and either may be meant" in found.summary
    (mend,) = found.problems
    assert "source_column: source, target_column: target" in mend
    if languages:
        assert "source_column: translation.en, target_column: translation.de" in mend
    named = {"source_column": "translation.en", "target_column": "translation.de"}
    assert unused(path=path, **languages, **named) == ("translation.fr", *beside)
    if len(beside) == 2:
        pairs, report = load_pairs(CorpusSource(path=path, **languages, **NAMED))
        assert [(pair.source, pair.target) for pair in pairs] == [("S", "T")] * 2
        assert report.unused == ("translation",)


def test_a_translation_that_is_a_text_is_metadata(tmp_path):
    rows = [texts(pair) | {"translation": "by hand"} for pair in PAIRS]
    assert unused(path=jsonl(tmp_path / "a.jsonl", rows), **EN_DE) == ("translation",)


@pytest.mark.parametrize(
    ("line", "columns", "named"),
    [
        ('{"source": "a", "target": "b", "source": "c"}', {}, "source"),
        ('{"source": "a", "target": "b", "document": "c", "document": "d"}', {}, "document"),
        ('{"translation": {"en": "a", "de": "b", "en": "c"}}', EN_DE, "translation.en"),
    ],
)
def test_a_text_that_a_json_line_has_twice_is_refused(tmp_path, line, columns, named):
    found = refusal(path=jsonl(tmp_path / "a.jsonl", f'{{"source": "", "target": ""}}\n{line}\n'), **columns)
    assert f"a.jsonl: line 2: says twice what {named} is" in found.summary


def test_metadata_that_is_there_twice_does_no_harm(tmp_path):
    lines = "".join(json.dumps(row)[:-1] + ', "id": 1}\n' for row in ROWS)
    assert unused(path=jsonl(tmp_path / "a.jsonl", lines)) == ("id", "domain", "score")


def test_columns_of_one_name_are_refused(tmp_path):
    table = pyarrow.Table.from_arrays(
        [pyarrow.array([text]) for text in "abc"], ["source", "target", "source"]
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert "says twice what source is" in str(refusal(path=str(tmp_path / "a.parquet")))
    names = ["source", "target", "source", "id", "id", "third"]
    path = tsv(tmp_path / "a.tsv", [names, ["a", "b", "c", "1", "2", "d"]])
    assert "line 1: 2 columns are called 'source'" in str(refusal(path=path, **NAMED))
    other = {"source_column": "target", "target_column": "third"}
    assert load_pairs(CorpusSource(path=path, **other))[1].unused == ("source", "id")


def read(path: Path, content: str, **source: Any) -> list[tuple[str, str, str]]:
    path.write_text(content, encoding="utf-8")
    return [
        (pair.source, pair.target, pair.document)
        for pair in load_whole(CorpusSource(path=str(path), **source)).pairs
    ]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_cells_that_a_csv_writer_quoted_are_those_that_it_was_given(tmp_path, quoting):
    rows = [['He said "Hi".', 'Er sagte "Hi".'], ['"Go!"', '"Los!"'], ["It's", "Es ist"], ["", "leer"]]
    file = io.StringIO()
    csv.writer(file, dialect="excel-tab", quoting=quoting).writerows([["en", "de"], *rows])
    content = file.getvalue() + "\n"  # an empty line is no cell without quotation marks
    found = read(tmp_path / "a.tsv", content, source_column="en", target_column="de")
    assert found == [*((*row, "") for row in rows), ("", "", "")]


def test_cells_that_a_csv_writer_quoted_are_beside_numbers_that_it_did_not(tmp_path):
    rows = [
        ["Go!", "Los!", 0.5, True],
        ["5", "5", "", False],
        ["Stop.", "Halt.", -2e-30, "?"],
        ["On", "Weiter", math.nan, True],
    ]
    file = io.StringIO()
    csv.writer(file, dialect="excel-tab", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    wanted = [(source, target, "") for source, target, *_ in rows]
    found = read(tmp_path / "a.tsv", file.getvalue(), source_column=0, target_column=1)
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    names = '"en"\t"de"\t"score"\t"checked"\n'
    named = read(tmp_path / "b.tsv", names + file.getvalue(), source_column="en", target_column="de")
    assert named == wanted


@pytest.mark.parametrize(
    "lines",
    [
        ['"Go!"\t"Los!"', "a\tb"],
        ['"Go!"\t"Los!"', "5\t5"],
        ['"Go!"\t1', '"a"\t2'],
        ['"a ""b"" c"\t"d"', 'the 17" screen\tx'],
        ['""a"" b\tc'],
        ['"a\tb"', "c\td"],
    ],
)
def test_other_quotation_marks_are_text(tmp_path, lines):
    rows = [tuple(line.split("\t")) for line in lines]
    assert read(tmp_path / "a.tsv", "\n".join(lines)) == [(*row, "") for row in rows]


def test_names_of_columns_are_no_pair(tmp_path):
    message = str(refusal(path=tsv(tmp_path / "a.tsv", [["Source", "Target"], ["a", "b"]])))
    assert "line 1 names the columns" in message
    assert "source_column: Source, target_column: Target" in message
    assert "line 1" in str(
        refusal(path=tsv(tmp_path / "a.tsv", [["en", "de", "id"], ["a", "b", "c"]]), **EN_DE)
    )
    swapped = str(
        refusal(
            path=tsv(tmp_path / "a.tsv", [["id", "pt-BR", "EN"], ["1", "a", "b"]]),
            source_language="en",
            target_language="pt-br",
        )
    )
    assert "source_column: EN, target_column: pt-BR" in swapped
    rows = [[" source", "target "], ["a", "b"]]
    assert load_pairs(CorpusSource(path=tsv(tmp_path / "a.tsv", rows), **NAMED))[0] == [Pair("a", "b")]


def test_positions_of_keys_are_those_of_the_first_object(tmp_path):
    rows = '{"en": "a", "de": "b"}\n\n{"de": "d", "en": "c"}\n'
    found = read(tmp_path / "a.jsonl", rows, source_column=0, target_column=1)
    assert found == [("a", "b", ""), ("", "", ""), ("c", "d", "")]
    with pytest.raises(InputError) as caught:
        read(tmp_path / "b.jsonl", '{"id": "x"}\n' + rows, source_column=0, target_column=1)
    assert "line 1" in str(caught.value)
    assert "line 2" not in str(caught.value)


def test_byte_order_marks_where_files_were_put_together_are_no_json(tmp_path):
    line = '\ufeff{"source": "a", "target": "b"}\n'
    assert read(tmp_path / "a.jsonl", "\ufeff" + line + line) == [("a", "b", "")] * 2


def test_a_document_may_be_called_zero(tmp_path):
    rows = [{"source": "a", "target": "b", "document": document} for document in (0, 1, None)]
    found = [
        pair.document for pair in load_pairs(CorpusSource(path=parquet(tmp_path / "a.parquet", rows)))[0]
    ]
    assert found == ["0", "1", ""]


@pytest.mark.parametrize("kind", ["jsonl", "tmx"])
def test_one_language_for_both_sides_is_refused(tmp_path, kind):
    row = json.dumps({"translation": {"en": "a", "de": "b"}})
    path = tmp_path / f"a.{kind}"
    path.write_text(row)
    message = str(refusal(path=str(path), source_language="en", target_language="en"))
    assert "both sides would be the same text" in message


def test_parquet_that_python_cannot_hold_is_one_message(tmp_path):
    texts = {"source": ["a"], "target": ["b"]}
    invalid = [None, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0"), pyarrow.py_buffer(b"\xff\xfe")]
    columns = [
        ("more", pyarrow.Array.from_buffers(pyarrow.string(), 1, invalid)),
        ("document", pyarrow.array([2**30], pyarrow.date32())),
        ("document", pyarrow.array([1], pyarrow.timestamp("s", "Nowhere/Land"))),
    ]
    for name, column in columns:
        path = tmp_path / "a.parquet"
        pyarrow.parquet.write_table(pyarrow.table({**texts, name: column}), path)
        assert "cannot be read as Parquet" in str(refusal(path=str(path)))


def test_numbers_and_times_of_parquet_that_are_not_asked_for_need_not_fit_python(tmp_path):
    others = {
        "day": pyarrow.array([2**30], pyarrow.date32()),
        "at": pyarrow.array([1], pyarrow.timestamp("ns")),
        "took": pyarrow.array([1], pyarrow.duration("ns")),
        "score": pyarrow.array([Decimal("0.5")], pyarrow.decimal128(3, 1)),
    }
    of_pairs = {"source": ["a"], "target": ["b"], "document": pyarrow.array([7])}
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({**others, **of_pairs}), path)
    pairs, report = load_pairs(CorpusSource(path=str(path)))
    assert pairs == [Pair("a", "b", "7")]
    assert report.unused == tuple(others)
    no_texts = {"target": pyarrow.array([None], pyarrow.float64())}  # as pandas writes a column of nothing
    pyarrow.parquet.write_table(pyarrow.table({**of_pairs, **no_texts}), path)
    assert refusal(path=str(path)).problems == ("0 of 1 pairs (dropped: 1 with an empty side)",)
