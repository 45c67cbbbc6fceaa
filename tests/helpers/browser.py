"""Chromium without a window, for tests of what is clicked: Debian's, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def needs_browser() -> None:
    """Skip the test, with the reason, where there is no browser to drive."""
    pytest.importorskip("playwright", reason="playwright is not installed (extra videolens[browser])")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")


@contextmanager
def browser() -> Iterator[Any]:
    """A running browser; its pages may fetch files, and nothing else is there."""
    needs_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # inside a container there is no sandbox to be had
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()
