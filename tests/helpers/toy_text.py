"""Two small parallel text files."""

from pathlib import Path


def write_pairs(folder: Path, count: int) -> None:
    """`train.en` and `train.de` with as many different lines."""
    english = "".join(f"open file number {i} and close it\n" for i in range(count))
    german = "".join(f"Datei Nummer {i} öffnen und schließen\n" for i in range(count))
    (folder / "train.en").write_text(english, encoding="utf-8")
    (folder / "train.de").write_text(german, encoding="utf-8")
