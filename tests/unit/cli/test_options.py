"""The options of a measuring protocol, as a command offers them."""

import dataclasses

import pytest
import typer
from typer.testing import CliRunner

from automoe.cli.options import takes_protocol
from automoe.cost.protocol import MeasuringProtocol
from automoe.errors import InputError

ALL = {
    "--backend": ("onnx", "backend", "onnx"),
    "--precision": ("int8", "precision", "int8"),
    "--threads": ("3", "threads", 3),
    "--beam-size": ("4", "beam_size", 4),
    "--source-length": ("6", "source_length", 6),
    "--target-length": ("7", "target_length", 7),
    "--vocabulary-size": ("50", "vocabulary_size", 50),
    "--norm": ("pre", "norm", "pre"),
    "--batch": ("8", "batch", 8),
    "--shortlist": ("40", "shortlist", 40),
}


def invoke(command, *arguments):
    """Run a command of its own program."""
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def told(*names, **defaults):
    """A command with the options, and the list of what it is told."""
    heard = []

    @takes_protocol(*names, **defaults)
    def command(word: str, protocol: MeasuringProtocol, loud: bool = False) -> None:
        heard.append((word, loud, protocol))

    return command, heard


def test_without_options_the_protocol_is_the_papers():
    command, heard = told()
    assert invoke(command, "hello").exit_code == 0
    assert heard == [("hello", False, MeasuringProtocol())]


def test_every_field_is_an_option():
    assert {name for _, name, _ in ALL.values()} == {
        field.name for field in dataclasses.fields(MeasuringProtocol)
    }
    command, heard = told()
    arguments = [text for option, (value, _, _) in ALL.items() for text in (option, value)]
    result = invoke(command, "hello", "--loud", *arguments)
    assert result.exit_code == 0, result.output
    expected = MeasuringProtocol(**{name: value for _, name, value in ALL.values()})
    assert heard == [("hello", True, expected)]


def test_the_beam_has_two_spellings():
    command, heard = told("beam_size")
    assert invoke(command, "hello", "--beam", "4").exit_code == 0
    assert heard[0][2] == MeasuringProtocol(beam_size=4)


@pytest.mark.parametrize("option", ALL)
def test_only_the_named_fields_are_offered(option):
    command, heard = told("beam_size", "norm")
    offered = invoke(command, "hello", option, ALL[option][0]).exit_code == 0
    assert offered == (option in ("--beam-size", "--norm"))
    assert len(heard) == offered


def test_a_command_may_have_defaults_of_its_own():
    command, heard = told(backend="onnx", batch=4)
    assert invoke(command, "hello").exit_code == 0
    assert invoke(command, "hello", "--backend", "torch").exit_code == 0
    assert [protocol for _, _, protocol in heard] == [
        MeasuringProtocol(backend="onnx", batch=4),
        MeasuringProtocol(batch=4),
    ]


def test_impossible_values_are_one_input_error_that_lists_them():
    command, heard = told()
    result = invoke(command, "hello", "--threads", "0", "--vocabulary-size", "4", "--batch", "-1")
    assert isinstance(result.exception, InputError)
    assert {problem.partition(":")[0] for problem in result.exception.problems} == {
        "threads",
        "vocabulary_size",
        "batch",
    }
    assert heard == []


def test_a_precision_that_the_engine_lacks_is_an_input_error():
    command, heard = told()
    result = invoke(command, "hello", "--backend", "onnx", "--precision", "float16")
    assert isinstance(result.exception, InputError)
    assert "onnx has no float16" in str(result.exception)
    assert heard == []
