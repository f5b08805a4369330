"""Values that make no sense are refused before anything is computed: one message, exit code 2."""

import sys
from pathlib import Path

import pytest

from automoe.cli.main import main
from automoe.design.architecture_file import save_architecture
from helpers.served import ARCHITECTURE, write_tiny_model

ABSURD = [
    (option, value)
    for option, values in {
        "--beam-size": ("0", "-1", "1000000000", "1.5", "five", "9" * 30),
        "--n-best": ("0", "-3", "6", "1000000000"),  # the beam is 5
        "--length-penalty": ("-1", "inf", "nan", "1e308"),
        "--min-length": ("0", "-1", "1000000000"),
        "--max-length-ratio": ("-0.1", "inf", "nan", "1e9"),
        "--max-length-extra": ("-1", "1000000000"),
        "--threads": ("0", "-2", "1000000000"),
        "--backend": ("cuda",),
        "--precision": ("int4",),
    }.items()
    for value in values
]
ABSURD_PROTOCOL = [
    (option, value)
    for option in ("--beam-size", "--source-length", "--target-length", "--batch", "--threads", "--runs")
    for value in ("0", "-1", "two")
] + [
    (option, "1000000000")
    for option in ("--beam-size", "--source-length", "--target-length", "--batch", "--threads")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must refuse; its message."""
    monkeypatch.setattr(sys, "argv", ["automoe", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


@pytest.mark.parametrize(("option", "value"), ABSURD)
def test_translate(
    model: Path,
    option: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = refused(monkeypatch, capsys, "translate", model, option, value)
    name = option.removeprefix("--")
    assert name in message or name.replace("-", "_") in message


def test_all_problems_are_listed(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--beam-size", "1000000000", "--min-length", "-1", "--max-length-ratio", "inf")
    message = refused(monkeypatch, capsys, "translate", model, *options)
    assert "beam_size: expected at most 100, got 1000000000" in message
    assert "min_length: expected at least 1, got -1" in message
    assert "max_length_ratio: expected at most 100, got inf" in message


@pytest.mark.parametrize(("option", "value"), ABSURD_PROTOCOL)
def test_latency(
    tmp_path: Path,
    option: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_architecture(ARCHITECTURE, tmp_path / "a.yaml")
    message = refused(monkeypatch, capsys, "latency", tmp_path / "a.yaml", option, value)
    name = option.removeprefix("--")
    assert name in message or name.replace("-", "_") in message


@pytest.mark.parametrize(
    "options",
    [
        ("--beam-size", "0"),
        ("--beam-size", "1000000000"),
        ("--port", "-1"),
        ("--root-path", "translator"),
        ("--cors-origin", "example.org"),
    ],
)
def test_serve(
    model: Path,
    options: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert options[1] in refused(monkeypatch, capsys, "serve", model, *options)
