"""Where the repository's files are, from wherever a test lies."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "recipes"
CORPORA = REPOSITORY / "data"
TEST_DATA = REPOSITORY / "tests" / "data"
