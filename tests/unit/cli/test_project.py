"""`automoe init`: what becomes of its options, and what is asked or refused."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from automoe.cli import project
from automoe.cli.main import app
from automoe.data.corpus import CorpusSource
from automoe.errors import InputError
from automoe.run.new_project import ProjectRequest

BUDGET = ["--latency-ms", "20", "--hours", "2"]


@pytest.fixture
def asked(monkeypatch) -> list[ProjectRequest]:
    """What the command asks for; nothing is made."""
    heard: list[ProjectRequest] = []
    monkeypatch.setattr("automoe.run.new_project.make_project", lambda request, say: heard.append(request))
    return heard


def invoke(*arguments: str, text: str | None = None):
    return CliRunner().invoke(app, ["init", "my-project", *arguments], input=text)


def problems(*arguments: str) -> tuple[str, ...]:
    result = invoke(*arguments)
    assert isinstance(result.exception, InputError), result.output
    return result.exception.problems


def test_files_tell_their_languages(asked):
    result = invoke("--source", "a/train.en.gz", "--target", "train.pt-BR", *BUDGET)
    assert result.exit_code == 0, result.output
    (request,) = asked
    assert request.train == CorpusSource(source_path="a/train.en.gz", target_path="train.pt-BR")
    assert (request.source_language, request.target_language) == ("en", "pt-BR")
    assert (request.wish.bounds, request.wish.hours) == ({"latency_ms": 20.0}, 2.0)
    assert (request.valid, request.test) == (None, None)
    assert (request.protocol.backend, request.protocol.precision) == ("onnx", "float32")
    assert request.folder == Path("my-project")
    assert "automoe run my-project" in result.output


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("data/news.en-de.train.tsv.xz", ("en", "de")),
        ("en-fr.jsonl", ("en", "fr")),
        ("opus_no-sv.tmx", ("no", "sv")),
    ],
)
def test_a_file_with_both_sides_tells_its_languages(asked, name, languages):
    assert invoke("--corpus", name, *BUDGET).exit_code == 0
    assert (asked[0].source_language, asked[0].target_language) == languages
    source = CorpusSource(path=name, source_language=languages[0], target_language=languages[1])
    assert asked[0].train == source


@pytest.mark.parametrize("name", ["my-own.tsv", "train.src", "notes.txt", "en-de/all.tsv", "ab-test.tsv"])
def test_a_name_that_only_looks_like_languages_tells_none(asked, name):
    side = ["--source", name, "--target", name] if "-" not in name else ["--corpus", name]
    assert problems(*side, *BUDGET) == ("--source-language: missing", "--target-language: missing")


def test_what_a_name_does_not_tell_is_said(asked):
    options = ["--source-language", "de", "--target-language", "en"]
    assert invoke("--corpus", "all.en-de.tsv", *options, *BUDGET).exit_code == 0
    assert (asked[0].source_language, asked[0].target_language) == ("de", "en")
    assert problems("--corpus", "all.tsv", *BUDGET) == (
        "--source-language: missing",
        "--target-language: missing",
    )


def test_a_named_corpus_and_its_splits(asked):
    options = ["--dataset", "wmt14", "--config", "de-en", "--valid", "validation", "--test", "test"]
    languages = {"source_language": "en", "target_language": "de"}
    arguments = ["--source-language", "en", "--target-language", "de"]
    assert invoke(*options, *arguments, *BUDGET).exit_code == 0
    for part, split in (("train", "train"), ("valid", "validation"), ("test", "test")):
        expected = CorpusSource(dataset="wmt14", config="de-en", split=split, **languages)
        assert getattr(asked[0], part) == expected


def test_columns_and_sets_of_two_files(asked, monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    result = invoke(
        "--corpus", "x.en-de.tsv", "--source-column", "english", "--target-column", "german",
        "--test-source", "~/t.en", "--test-target", "~/t.de", *BUDGET,
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    assert (asked[0].train.source_column, asked[0].train.target_column) == ("english", "german")
    assert asked[0].test == CorpusSource(source_path="/home/anna/t.en", target_path="/home/anna/t.de")


def test_several_bounds_and_shares(asked):
    options = [
        "--source",
        "x.en",
        "--target",
        "x.de",
        "--latency-ms",
        "40%",
        "--flops",
        "2e7",
        "--hours",
        "1",
    ]
    assert invoke(*options, "--backend", "onnx", "--precision", "int8", "--threads", "4").exit_code == 0
    assert asked[0].wish.bounds == {"latency_ms": "40%", "flops": 2e7}
    assert asked[0].wish.with_baseline
    assert (asked[0].protocol.precision, asked[0].protocol.threads) == ("int8", 4)


def test_everything_that_is_missing_is_listed_at_once(asked):
    found = problems()
    for part in (
        "--source-language",
        "--target-language",
        "--latency-ms or --flops",
        "--hours",
        "give the text",
    ):
        assert any(problem.startswith(part) for problem in found), part
    assert len(found) == 5
    assert asked == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--hours", "0"], "--hours: expected"),
        (["--hours", "-1"], "--hours: expected"),
        (["--hours", "nan"], "--hours: expected"),
        (["--hours", "inf"], "--hours: expected"),
        (["--hours", "1e9"], "--hours: expected"),
        (["--latency-ms", "0"], "--latency-ms: expected"),
        (["--latency-ms", "-5"], "--latency-ms: expected"),
        (["--latency-ms", "fast"], "--latency-ms: expected"),
        (["--latency-ms", "nan"], "--latency-ms: expected"),
        (["--latency-ms", "0%"], "--latency-ms: expected"),
        (["--flops", "inf"], "--flops: expected"),
        (["--target-language", "en"], "--source-language, --target-language: both are en"),
        (["--corpus", "x.tsv"], "--source, --target, --corpus: give exactly one of"),
        (["--test-source", "t.en"], "--test: source_path and target_path go together"),
    ],
)
def test_absurd_options_are_one_problem(asked, arguments, expected):
    (found,) = problems("--source", "x.en", "--target", "x.de", *BUDGET, *arguments)
    assert found.startswith(expected)
    assert asked == []


def test_on_a_terminal_what_is_missing_is_asked(asked, monkeypatch):
    monkeypatch.setattr(project, "on_terminal", lambda: True)
    result = invoke("--source", "x.txt", "--target", "y.txt", text="en\nde\n40%\n1.5\n")
    assert result.exit_code == 0, result.output
    assert (asked[0].source_language, asked[0].target_language) == ("en", "de")
    assert (asked[0].wish.bounds, asked[0].wish.hours) == ({"latency_ms": "40%"}, 1.5)
