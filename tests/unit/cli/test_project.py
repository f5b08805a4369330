"""`automoe init`: what becomes of its options, and what is asked or refused."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from automoe.cli import project
from automoe.cli.main import app, main
from automoe.cli.text_options import TextOptions
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


def test_files_may_tell_their_languages_in_upper_case(asked):
    assert invoke("--source", "TRAIN.EN.GZ", "--target", "TRAIN.ZH-TW", *BUDGET).exit_code == 0
    assert (asked[0].source_language, asked[0].target_language) == ("en", "zh-TW")


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("data/news.en-de.train.tsv.xz", ("en", "de")),
        ("en-fr.jsonl", ("en", "fr")),
        ("opus_no-sv.tmx", ("no", "sv")),
        ("NEWS.EN-DE.TSV.GZ", ("en", "de")),
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


@pytest.mark.parametrize(
    ("capabilities", "gpu", "precision"),
    [
        ({}, False, "32-true"),
        ({"avx512_bf16": False, "amx_bf16": False}, False, "32-true"),
        ({"avx512_bf16": True, "amx_bf16": False}, False, "bf16-mixed"),
        ({"amx_bf16": True}, False, "bf16-mixed"),
        ({}, True, "bf16-mixed"),
    ],
)
def test_trainings_are_in_bfloat16_where_it_is_fast(asked, monkeypatch, capabilities, gpu, precision):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert invoke("--source", "x.en", "--target", "x.de", *BUDGET).exit_code == 0
    assert (asked[0].wish.precision, asked[0].wish.gpu) == (precision, gpu)


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
        (["--corpus", "x.tsv"], "--source, --target, --corpus: give the text in one way, not in 2"),
        (["--dataset", "x"], "--source, --target, --dataset: give the text in one way, not in 2"),
        (["--test-source", "t.en"], "--test-source: needs --test-target"),
        (["--valid-target", "v.de"], "--valid-target: needs --valid-source"),
        (
            ["--valid", "v.tsv", "--valid-source", "v.en", "--valid-target", "v.de"],
            "--valid, --valid-source, --valid-target: give the validation set in one way",
        ),
        (["--config", "de-en"], "--config: has no effect without --dataset"),
        (["--split", "train"], "--split: has no effect without --dataset"),
        (["--source-column", "a", "--target-column", "b"], "--source-column, --target-column: no effect"),
        (
            ["--valid", "v.tmx.gz", "--source-column", "0", "--target-column", "1"],
            "--source-column, --target-column: no effect",
        ),
        (["--valid", "v.tsv", "--source-column", "0"], "--source-column: needs --target-column"),
        (
            ["--valid", "v.tsv", "--test", "t.tsv", "--source-column", "0", "--target-column", "b"],
            "--source-column, --target-column: expected two names or two positions",
        ),
        (["--test", ""], "--test: is empty"),
    ],
)
def test_absurd_options_are_one_problem(asked, arguments, expected):
    (found,) = problems("--source", "x.en", "--target", "x.de", *BUDGET, *arguments)
    assert found.startswith(expected)
    assert asked == []


def test_all_that_contradicts_itself_is_listed_at_once(asked):
    found = problems(
        "--corpus", "a.tsv", "--dataset", "b", "--target", "c.de", "--test", "x", "--test-source", "t.en",
        "--source-column", "0", "--hours", "0", "--flops", "none",
    )  # fmt: skip
    assert [problem.partition(":")[0] for problem in found] == [
        "--target, --corpus, --dataset",
        "--test, --test-source",
        "--target",
        "--source-column",
        "--test-source",
        "--source-language",
        "--flops",
        "--hours",
    ]
    assert asked == []


def test_the_command_itself_refuses_with_one_message_and_code_2(asked, monkeypatch, capsys):
    line = ["automoe", "init", "p", "--corpus", "x.en-de.tsv", "--config", "de-en", "--split", "a", *BUDGET]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "--config: has no effect without --dataset" in said
    assert "--split: has no effect without --dataset" in said
    assert asked == []


# Each option of the text, with options beside which it means something.
BESIDE = {
    "source": ["--target", "x.de"],
    "target": ["--source", "x.en"],
    "corpus": [],
    "dataset": [],
    "config": ["--dataset", "x"],
    "split": ["--dataset", "x"],
    "source_column": ["--corpus", "x.tsv", "--target-column", "b"],
    "target_column": ["--source", "x.en", "--target", "x.de", "--test", "t.tsv", "--source-column", "b"],
    "valid": ["--corpus", "x.tsv"],
    "test": ["--dataset", "x"],
    "valid_source": ["--corpus", "x.tsv", "--valid-target", "v.de"],
    "valid_target": ["--dataset", "x", "--valid-source", "v.en"],
    "test_source": ["--corpus", "x.tmx", "--test-target", "t.de"],
    "test_target": ["--source", "x.en", "--target", "x.de", "--test-source", "t.en"],
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TextOptions)])
def test_no_option_of_the_text_is_accepted_and_ignored(asked, name):
    """Whatever is accepted is seen in the corpora that are asked for."""
    languages = ["--source-language", "en", "--target-language", "de"]
    option = f"--{name.replace('_', '-')}"
    result = invoke(option, "unmistakable", *BESIDE[name], *languages, *BUDGET)
    assert result.exit_code == 0, result.exception
    corpora = (asked[0].train, asked[0].valid, asked[0].test)
    assert "unmistakable" in str(corpora)


@given(st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(TextOptions)]),
                       st.sampled_from(["a.tsv", "b.tmx", "3"])))  # fmt: skip
def test_any_options_are_refused_or_each_is_in_the_corpora(given_options):
    names = {name: f"{name}.{value}" for name, value in given_options.items()}
    options = TextOptions(**names)
    if problems := list(options.problems()):
        assert all(isinstance(problem, str) for problem in problems)
        return
    corpora = [options.corpus_of(part, ("en", "de")) for part in ("corpus", "valid", "test")]
    assert corpora[0] is not None
    for value in names.values():
        assert repr(value) in str(corpora)


def test_on_a_terminal_nothing_is_asked_that_would_be_in_vain(asked, monkeypatch):
    monkeypatch.setattr(project, "on_terminal", lambda: True)
    result = invoke("--source", "x.txt", "--target", "y.txt", "--split", "train", "--hours", "0")
    assert result.exception.problems == (
        "--split: has no effect without --dataset",
        "--hours: expected 0 to 8760, more than 0, got 0",
    )
    assert result.output == ""


def test_on_a_terminal_what_is_missing_is_asked(asked, monkeypatch):
    monkeypatch.setattr(project, "on_terminal", lambda: True)
    result = invoke("--source", "x.txt", "--target", "y.txt", text="en\nde\n40%\n1.5\n")
    assert result.exit_code == 0, result.output
    assert (asked[0].source_language, asked[0].target_language) == ("en", "de")
    assert (asked[0].wish.bounds, asked[0].wish.hours) == ({"latency_ms": "40%"}, 1.5)
