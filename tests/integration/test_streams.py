"""`automoe translate` and the exported program as parts of a pipeline: their streams, and how they fail."""

import itertools
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from automoe.data.tokenizer import train_tokenizer
from automoe.export.onnx import export_onnx
from automoe.inference.beam_settings import BeamSettings
from automoe.inference.model_folder import save_model
from automoe.inference.torch_engine import TorchEngine
from automoe.inference.translator import Translator
from automoe.model.transformer import Transformer
from helpers.served import ARCHITECTURE

pytestmark = pytest.mark.slow  # whole processes, seconds each

PATIENCE_SECONDS = 600  # with a process that answers at once; a busy machine may take its time
WORDS = ["der", "Bär", "isst", "zwei", "Bären", "und", "читает", "текст", "wörtlich", "łódź"]
ODD = [
    "Bär isst",
    "",
    "   ",
    "\t",
    "Bär isst\r",
    "\r",
    "\r\r",
    "Bär\risst",
    "\x00",
    "Bär\x00isst",
    *(f"{left}{character}{right}" for character in "\x0b\x0c\x1c\x1e\x85\u2028\u2029\u3000\xa0"
      for left, right in [("", ""), ("Bär", "isst"), ("Bär isst", "")]),
    "  Bär   isst  ",
    "<s> </s> <pad> <unk>",
    "漢字",
    "😀 Bär",
    "||| ||| Bär",
    "Ba\u0308r",
    "\\n Bär \\r",
]  # fmt: skip


class Setup(NamedTuple):
    model: Path
    exported: Path
    expected: Callable[[str], str]  # the reference translation of one line, by itself


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("streams")
    tokenizer = train_tokenizer([" ".join(pair) for pair in itertools.permutations(WORDS, 2)], 41)
    model = Transformer(ARCHITECTURE, tokenizer.vocabulary_size)
    model.initialise(4)
    save_model(folder / "model", model, tokenizer, {})
    export_onnx(folder / "model", folder / "exported")
    reference = Translator(TorchEngine(model.eval()), tokenizer, BeamSettings())
    return Setup(folder / "model", folder / "exported", lambda line: next(reference.translate([line])))


@pytest.fixture(params=["automoe", "exported"])
def program(request: pytest.FixtureRequest, setup: Setup) -> list[str]:
    if request.param == "automoe":
        return [sys.executable, "-m", "automoe", "translate", str(setup.model)]
    return [sys.executable, str(setup.exported / "translate.py")]


def run(program: list[str], text: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        program, input=text, capture_output=True, env=variables, timeout=PATIENCE_SECONDS, check=False
    )


@pytest.mark.parametrize("end", ["\n", ""], ids=["final newline", "none"])
def test_a_line_out_for_every_line_in_however_odd(program: list[str], setup: Setup, end: str) -> None:
    done = run(program, ("\n".join(ODD) + end).encode())
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().removesuffix("\n").split("\n") == [setup.expected(line) for line in ODD]
    assert done.stdout.endswith(b"\n")


def test_nothing_in_is_nothing_out(program: list[str]) -> None:
    done = run(program, b"")
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-16"},
        {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
    ],
    ids=lambda environment: " ".join(f"{name}={value}" for name, value in environment.items()),
)
def test_text_is_utf8_whatever_the_environment_says(
    program: list[str], setup: Setup, environment: dict[str, str]
) -> None:
    lines = ["Bär isst und", "łódź читает", "текст"]
    expected = "".join(setup.expected(line) + "\n" for line in lines)
    assert not expected.isascii()
    done = run(program, "\n".join(lines).encode(), **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected.encode(), b"")


@pytest.mark.parametrize(
    "wrong",
    [b"\xff", "Bär".encode("latin-1"), "Bär".encode()[:2], b"\xed\xa0\x80"],
)
def test_what_is_not_utf8_is_one_message_that_names_the_line(
    program: list[str], setup: Setup, wrong: bytes
) -> None:
    done = run(program, "Bär isst\n\n".encode() + wrong + b"\nund\n")
    assert done.returncode == 2
    assert done.stdout.decode() == setup.expected("Bär isst") + "\n\n"  # what came before is answered
    assert b"line 3: is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: what is typed at one end, a line at a time, is read at the other."""
    typed, read = pty.openpty()
    attributes = termios.tcgetattr(read)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(read, termios.TCSANOW, attributes)
    yield read, typed


@pytest.mark.parametrize("channel", [pipe, terminal])
def test_a_line_is_answered_before_the_next_is_asked(
    program: list[str], setup: Setup, channel: Callable[[], "contextmanager[tuple[int, int]]"]
) -> None:
    with channel() as (reader, writer):
        process = subprocess.Popen(program, stdin=reader, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            for line in ("Bär isst", "", "und der Bär"):
                os.write(writer, f"{line}\n".encode())
                answered, _, _ = select.select([process.stdout], [], [], PATIENCE_SECONDS)
                assert answered, "no answer"
                assert process.stdout.readline().decode() == setup.expected(line) + "\n"
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            os.close(reader)
            os.close(writer)


def test_an_output_whose_reader_leaves_ends_with_a_message(program: list[str], setup: Setup) -> None:
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stderr:
        process.stdin.write("Bär isst\n".encode())
        process.stdin.flush()
        assert process.stdout.readline().decode() == setup.expected("Bär isst") + "\n"
        process.stdout.close()
        process.stdin.write(b"und\n")
        process.stdin.flush()
        assert process.wait(timeout=PATIENCE_SECONDS) == 1
        message = process.stderr.read().decode()
    assert message.endswith(f"{os.strerror(32)}\n")
    assert message.count("\n") == 1


def test_a_full_output_ends_with_a_message(program: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            program,
            input="Bär\nisst\n".encode(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.decode().endswith(f"{os.strerror(28)}\n")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams(program: list[str], setup: Setup, closed: str) -> None:
    shell = ["sh", "-c", f'"$@" {closed}', "sh", *program]
    done = run(shell, "Bär\n".encode())
    if closed == "2>&-":  # messages go nowhere, translations do not
        assert (done.returncode, done.stdout.decode()) == (0, setup.expected("Bär") + "\n")
    else:
        assert done.returncode == 2
        assert b"closed" in done.stderr
        assert b"Traceback" not in done.stderr
        assert done.stdout == b""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["translate", "--help"]])
def test_every_commands_output_may_be_full(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "automoe", *arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE_SECONDS, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode() == f"automoe: standard output cannot be written: {os.strerror(28)}\n"


def test_alone_or_among_many_a_line_has_the_same_translation(setup: Setup) -> None:
    lines = [" ".join(words) for words in itertools.permutations(WORDS[:5], 3)]
    program = [sys.executable, "-m", "automoe", "translate", str(setup.model)]
    together = run(program, "".join(f"{line}\n" for line in lines).encode()).stdout.decode().splitlines()
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    alone = []
    with process:
        for line in lines:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            alone.append(process.stdout.readline().decode().removesuffix("\n"))
        process.stdin.close()
    assert alone == together
    assert len(set(together)) > 1
