"""A real headless Chromium, for the tests of pages.

Needs one: Debian's package `chromium`, another in the PATH, or playwright's own. Without one the tests that
ask for it are skipped; `.ci/run` installs it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without these it looks up its maker's hosts at every start.
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, started; skips the test that has none."""
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            message = "no Chromium found: apt-get install chromium, or playwright install chromium"
            pytest.skip(message)
        # Chromium refuses to isolate its processes as root, which containers are.
        isolation = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, *isolation])
        yield browser
        browser.close()
