"""A console over real HTTP, and a browser without JavaScript: it keeps cookies and fills in the forms of a page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tests.support.sqlite import sqlite_url
from workqueue import open_queue
from workqueue.fallbacks import FullQueue
from workqueue.web.console import Admission, Console, ConsoleSettings, OIDCLogin
from workqueue.web.server import http_server

__all__ = ["Browser", "Page", "browsing", "console_at", "stored"]

_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


@dataclass(frozen=True)
class Page:
    """What was answered, after redirects."""

    status: int
    text: str
    path: str
    headers: Mapping[str, str]

    @property
    def said(self) -> str:
        """What a reader sees: no markup, one blank between words."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.text)).split())

    @property
    def form_token(self) -> str:
        found = _TOKEN.search(self.text)
        assert found, self.text
        return found[1]


class Browser:
    """One person's browser at one console."""

    def __init__(self, url: str, session: aiohttp.ClientSession, origin: str = "") -> None:
        self.url = url
        self.session = session
        self.origin = origin or str(URL(url).origin())

    async def get(self, path: str, **headers: str) -> Page:
        return await self._ask("GET", path, headers, None)

    async def post(self, path: str, fields: Mapping[str, str | Sequence[str]], **headers: str) -> Page:
        """As a script would, with what headers it likes."""
        pairs = [
            (name, value) for name, given in fields.items() for value in ([given] if isinstance(given, str) else given)
        ]
        return await self._ask("POST", path, headers, pairs)

    async def submit(self, page: Page, path: str, **fields: str | Sequence[str]) -> Page:
        """Send a form of `page`, as a browser does."""
        return await self.post(path, {"form_token": page.form_token, **fields}, origin=self.origin)

    async def _ask(self, method: str, path: str, headers: Mapping[str, str], data: Any) -> Page:
        async with self.session.request(
            method, URL(self.url + path, encoded=True), headers=headers, data=data
        ) as response:
            return Page(response.status, await response.text(), response.url.raw_path_qs, response.headers)


@asynccontextmanager
async def browsing(url: str) -> AsyncIterator[Browser]:
    """A browser that nobody used yet."""
    jar = aiohttp.CookieJar(unsafe=True)  # it takes the cookies of an address, too
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield Browser(url, session)


@asynccontextmanager
async def console_at(
    queue: FullQueue,
    settings: ConsoleSettings | None = None,
    admission: Admission | None = None,
    login: OIDCLogin | None = None,
) -> AsyncIterator[Browser]:
    """A browser at a console that shows `queue` as `default`."""
    async with (
        Console({"default": queue}, settings or ConsoleSettings(), admission, login) as console,
        http_server(console.app, "127.0.0.1", 0) as port,
        browsing(f"http://127.0.0.1:{port}") as browser,
    ):
        yield browser


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[FullQueue]:
    """A queue in a file."""
    async with open_queue(sqlite_url(folder / "wq.db"), owner="pod-7") as queue:
        yield queue
