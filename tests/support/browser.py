"""A Chromium to drive: which one, and how to open it.

Playwright's own download is only one of the places to look: Debian's package serves as well.
CHROMIUM=/path/to/it overrides the search.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_MAC_APPS = ("Chromium", "Google Chrome")
_VERSION_TIMEOUT_S = 30


def find_chromium() -> str | None:
    """The first Chromium that says its version, or None. (Some systems ship only a stub.)"""
    return next((path for path in _candidates() if _runs(path)), None)


def _candidates() -> Iterator[str]:
    if named := os.environ.get("CHROMIUM"):
        yield named
        return
    yield from filter(None, map(shutil.which, _NAMES))
    for app in _MAC_APPS:
        yield f"/Applications/{app}.app/Contents/MacOS/{app}"
    for pattern in ("chromium-*/chrome-*/chrome", "chromium-*/chrome-*/*.app/Contents/MacOS/*"):
        yield from sorted(map(str, _playwright_cache().glob(pattern)), reverse=True)


def _playwright_cache() -> Path:
    if named := os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        return Path(named)
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path.home() / caches / "ms-playwright"


def _runs(path: str) -> bool:
    try:
        asked = subprocess.run(
            [path, "--version"], capture_output=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


@asynccontextmanager
async def open_chromium() -> AsyncIterator[Browser]:
    """A headless browser, closed on the way out.

    Raises:
        AssertionError: there is none; the message says how to get or to deselect it.
    """
    path = find_chromium()
    assert path is not None, (
        "no Chromium found: install one (Debian: apt-get install chromium; anywhere: "
        "playwright install chromium), name it by CHROMIUM, or leave its tests out by name: "
        "pytest -m 'not browser'"
    )
    # Chromium's sandbox refuses root; a container's /dev/shm is too small for it.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()
