"""Reading a YAML file that a user wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from automoe.errors import InputError


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        InputError: the file is missing, is not text, is not YAML, or does not hold keys and values.
    """
    path = Path(path)
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read", [error.strerror or str(error)]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not YAML", [str(error)]) from error
    if not isinstance(plain, dict):
        raise InputError(f"{path}: cannot be used", [f"expected keys and values, got {plain!r:.80}"])
    return plain
