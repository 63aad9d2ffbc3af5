"""A real browser: the machine's chromium, driven by Playwright, one fresh profile a story."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
from playwright.async_api import Page, async_playwright

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM: Final = next(filter(None, map(shutil.which, _NAMES)), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser on this machine: none of {', '.join(_NAMES)} is on the PATH"
)


def browse(story: Callable[[Page], Awaitable[None]], *, javascript: bool = True) -> None:
    """Live through a story on one page. What the browser's console complains about fails it."""
    complaints: list[str] = []

    async def run() -> None:
        async with async_playwright() as play:
            browser = await play.chromium.launch(
                executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0, args=["--disable-gpu"]
            )
            page = await browser.new_page(java_script_enabled=javascript)
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            await story(page)
            await browser.close()

    asyncio.run(run())
    # A declined card is a 402, and Chromium calls every page that is not a 2xx an error.
    assert [each for each in complaints if "402" not in each] == []
