"""Architectures in files: this project's YAML, and HAT's and AutoMoE's."""

from __future__ import annotations

from pathlib import Path

import yaml

from automoe.design.architecture import Architecture
from automoe.design.hat_file import architecture_from_hat, is_hat
from automoe.errors import InputError
from automoe.storage import read_mapping, write_text


def load_architecture(path: str | Path) -> Architecture:
    """Read an architecture from YAML: the project's own format, or HAT's and AutoMoE's.

    Raises:
        InputError: the file is missing, is not YAML, or does not describe an architecture.
    """
    plain = read_mapping(path)
    try:
        if is_hat(plain):
            return architecture_from_hat(read_mapping(path, as_text=True))
        return Architecture.from_dict(plain)
    except InputError as error:
        raise InputError(f"{path}: {error.summary}", error.problems) from error


def save_architecture(architecture: Architecture, path: str | Path) -> None:
    """Write the project's YAML format.

    Raises:
        InputError: the disk is full or refuses.
    """
    write_text(path, yaml.safe_dump(architecture.to_dict(), sort_keys=False, default_flow_style=None))
