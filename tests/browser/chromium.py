"""For the tests in a browser: a Chromium at a console that is a process, which notes what it complained about."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.support.programs import Server, serving
from workqueue import Options, open_queue
from workqueue.equipment import Equipment
from workqueue.fallbacks import FullQueue
from workqueue.optional import LeaseRequest

__all__ = ["At", "at_console", "chromium"]

PATIENCE_MS = 30_000  # of a machine that does other things too


@dataclass
class At:
    """A page at a console, and what the browser complained about: errors, what the policy forbids, other hosts."""

    queue: FullQueue
    server: Server
    browser: Browser
    context: BrowserContext
    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Of the queue."""
        return f"/q/{Equipment.of(self.queue).name}"

    async def go(self, rest: str = "") -> None:
        """Show a page of the queue."""
        await self.page.goto(self.base + self.path + rest)

    async def press(self, name: str) -> None:
        """Press the button of exactly this name."""
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def reads(self, text: str) -> None:
        """Wait until this is to be read."""
        await self.page.get_by_text(text).first.wait_for()

    async def dead(self, *keys: str, error: str = "HTTP 503", payload: bytes = b"{}") -> None:
        """Have these keys given up, one after the other."""
        for key in keys:
            await self.queue.queue(key, Options(payload=payload, meta={"note": error[:80]}))
            [owned] = (await self.queue.lease(LeaseRequest(1, 100))).started
            await owned.dead_letter(error)

    def listen(self, page: Page) -> None:
        """Note what `page` has to complain about."""
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._is_ours(request.url))

    def _is_ours(self, url: str) -> None:
        if not url.startswith(self.base):
            self.complaints.append(f"asked {url}")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium without a profile; as root it has no sandbox."""
    async with async_playwright() as driver:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def at_console(url: str, *flags: str, **how: Any) -> AsyncIterator[At]:
    """A page of a browser context that is `how`, at `workqueue console` with `flags` for the queue at `url`."""
    with serving("workqueue.cli", "console", "--queue", url, "--http-port", "0", *flags) as server:
        base = f"http://127.0.0.1:{server.port('the console on')}"
        async with open_queue(url, owner="pod-7") as queue, chromium() as browser:
            context = await browser.new_context(**how)
            at = At(queue, server, browser, context, await context.new_page(), base)
            at.listen(at.page)
            yield at
