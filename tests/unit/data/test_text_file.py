"""What is no text, and yet may be read as one, is refused by what it is."""

import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from automoe.data.text_file import LineProblems, numbered_lines
from automoe.errors import InputError

TEXT = "".join(f"House {number} is red.\n" for number in range(300)).encode()


def lines(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    problems = LineProblems(path)
    found = [line for _, line in numbered_lines(path, problems)]
    problems.raise_any()
    return found


def tar(format_: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
        member = tarfile.TarInfo("train.en")
        member.size = len(TEXT)
        archive.addfile(member, io.BytesIO(TEXT))
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.en", TEXT)
    return file.getvalue()


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
def test_a_tar_archive_is_no_text_although_all_its_bytes_are(tmp_path, format_, compress):
    with pytest.raises(InputError, match="is a tar archive; unpack it first"):
        lines(tmp_path / "train.en", compress(tar(format_)))


def test_the_letters_of_a_tar_archive_may_be_a_words(tmp_path):
    line = "x" * 255 + "ajustar"
    assert lines(tmp_path / "a", f"{line}\n".encode()) == [line]


@pytest.mark.parametrize(
    "content",
    [
        zipped(),
        gzip.compress(gzip.compress(TEXT)),
        lzma.compress(TEXT, format=lzma.FORMAT_ALONE),
        b"PAR1\x15\0\x15\xf0\x02" + TEXT,
    ],
    ids=["zip", "gzip twice", "lzma", "parquet"],
)
def test_other_binary_files_are_not_said_to_be_in_another_encoding(tmp_path, content):
    with pytest.raises(InputError, match="no text but an archive") as caught:
        lines(tmp_path / "train.en", content)
    assert "iconv" not in str(caught.value)


def test_text_with_a_zero_byte_is_text(tmp_path):
    content = "a\0b\n" + "ü\n" * 40_000  # a character is cut where the look at its beginning ends
    assert lines(tmp_path / "a", content.encode()) == content.split("\n")[:-1]
    assert lines(tmp_path / "b", b"x" + content.encode()) == ("x" + content).split("\n")[:-1]


def test_carriage_returns_behind_a_first_line_that_has_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="carriage return alone"):
        lines(tmp_path / "a", b"en\tde\na\tb\rc\td\re\tf\r")
    assert lines(tmp_path / "b", b"a\rb\nc\r\n\r\nd") == ["a\rb", "c", "", "d"]
    assert lines(tmp_path / "c", b"a\rb\tc\n") == ["a\rb\tc"]
    assert lines(tmp_path / "d", b"a\rb\r\r\nc\r\r\n") == ["a\rb", "c"]
