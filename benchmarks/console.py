"""The console's pages of a backlog of a million keys, on Redis and SQLite: how long each takes, and the memory of it.

`python -m benchmarks.console [--backlog N] [--only redis|sqlite]`; some three minutes. It is `workqueue console`, a
process of its own, asked over HTTP as a browser does, whole pages without their style and script. Pages of the long
queue and of one of 1,000 keys are asked for in turns and medians taken, so that a machine that slows down slows both.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from html import unescape
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import aiohttp
from yarl import URL

from benchmarks.paging import ASKED_MS, ROUNDS, SHORT, Row, fill, show
from tests.fakes.redis_server import RedisServer
from tests.support.processes import started
from workqueue import open_queue

WALK = 200  # pages of 100
PAGES = {
    "the first page of keys": "keys/queued",
    "the overview": "",
    "a prefix that no key has": "keys/queued?prefix=x",
}


class Browser:
    """Asks one console for pages."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def page(self, path: str) -> str:
        """The text of a page."""
        async with self._session.get(URL(self._base + path, encoded=True)) as answer:
            answer.raise_for_status()
            return await answer.text()

    async def milliseconds(self, path: str) -> float:
        """How long a page takes to its last byte."""
        began = time.perf_counter()
        await self.page(path)
        return (time.perf_counter() - began) * 1000


@contextmanager
def console(url: str, short_url: str) -> Iterator[tuple[int, str]]:
    """`workqueue console` of both queues: its process id, and where it is."""
    command = ("console", "--queue", url, "--queue", short_url, "--http-port", "0")
    with started([sys.executable, "-m", "workqueue.cli", *command], out=False) as process:
        port = process.logged("the console on").rpartition(":")[2].strip()
        yield process.pid, f"http://127.0.0.1:{port}/q/"


@asynccontextmanager
async def browsing(base: str) -> AsyncIterator[Browser]:
    """A browser without cookies."""
    async with aiohttp.ClientSession() as session:
        yield Browser(session, base)


def resident(pid: int) -> int:
    """Bytes that a process has in memory now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


async def walk(browser: Browser, pid: int) -> float:
    """How much more memory the console had at most over `WALK` pages than after ten of them, in MiB."""
    path, sizes = "long/keys/queued", []
    for _ in range(WALK):
        page = await browser.page(path)
        sizes.append(resident(pid))
        if 'rel="next"' not in page:
            break
        path = unescape(page.split('rel="next" href="/q/')[1].split('"')[0])
    return (max(sizes[9:], default=0) - sizes[min(9, len(sizes) - 1)]) / 2**20


async def filled(url: str, count: int) -> None:
    """Have so many eligible keys there."""
    async with open_queue(url) as queue:
        await fill(queue, count)


async def measured(name: str, url: str, short_url: str, backlog: int) -> list[Row]:
    """The rows of one store."""
    await filled(url, backlog)
    await filled(short_url, SHORT)
    rows: list[Row] = []
    with console(url, short_url) as (pid, base):
        async with browsing(base) as browser:
            cold = await browser.milliseconds("long/keys/queued")
            rows.append(
                (f"{name}: the first page of {backlog:,} keys, just started", f"{cold:.1f} ms", f"{ASKED_MS} ms")
            )
            for what, path in PAGES.items():
                took: dict[str, list[float]] = {"long": [], "short": []}
                for _ in range(ROUNDS):
                    for queue, times in took.items():
                        times.append(await browser.milliseconds(f"{queue}/{path}".rstrip("/")))
                long, short = median(took["long"]), median(took["short"])
                rows.append((f"{name}: {what}", f"{long:.1f} ms; of {SHORT:,} keys {short:.1f} ms", ""))
            grown = await walk(browser, pid)
            held = resident(pid) / 2**20
    return [*rows, (f"{name}: memory over {WALK} pages", f"{held:.0f} MiB, {grown:+.1f} MiB", "flat")]


def redis(backlog: int) -> list[Row]:
    """On a Redis of its own."""
    with RedisServer() as server:
        return asyncio.run(measured("Redis", server.url("long"), server.url("short"), backlog))


def sqlite(backlog: int) -> list[Row]:
    """On a file of its own; filled without an fsync, which pages have nothing to do with."""
    with TemporaryDirectory() as folder:
        names = ("long", "short")
        urls = [f"sqlite:///{Path(folder) / name}.db?synchronous=normal&name={name}" for name in names]
        return asyncio.run(measured("SQLite", urls[0], urls[1], backlog))


STORES = {"redis": redis, "sqlite": sqlite}


if __name__ == "__main__":
    show(__doc__, STORES)
