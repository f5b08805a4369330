"""npm's packages for an exported folder, installed once and shared.

Needs Node, npm and its registry. Without them the tests that ask for packages are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE_SECONDS = 300
QUIET = ("--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--no-update-notifier")


@contextmanager
def packages(exported: Path, folder: Path) -> Iterator[Path]:
    """The `node_modules` that an exported folder's `package.json` asks for.

    Args:
        folder: where they are installed; removed at the end, for they are hundreds of megabytes.
    """
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} found: install Node.js 20 or newer")
    folder.mkdir()
    shutil.copy(exported / "package.json", folder)
    try:
        command = ["npm", "install", *QUIET, "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        if done.returncode != 0:
            pytest.skip(f"npm cannot install the packages: {done.stderr.strip()[:500]}")
        yield folder / "node_modules"
    finally:
        shutil.rmtree(folder)
