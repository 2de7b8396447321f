"""Paging through a backlog of a million keys, on Redis and SQLite: the first page, page 1,000, and the memory of it.

`python -m benchmarks.paging [--backlog N] [--only redis|sqlite]`; some three minutes. Pages of the two queues, the long
one and one of 1,000 keys, are read in turns and medians taken, so that a machine that slows down slows both. The keys
are of three priorities, and half of them of one moment, which is the worst to find a place in. Redis is one that this
starts for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from tests.fakes.redis_server import RedisServer
from workqueue import Options, open_queue
from workqueue.fallbacks import FullQueue
from workqueue.paging import MAX_LIMIT, PageRequest, Place

SHORT = 1_000
LIMIT = 100
ROUNDS = 15
WALK = 100  # pages of 1,000: a tenth of the backlog
ASKED_MS = 300

Row = tuple[str, str, str]


async def fill(queue: FullQueue, count: int) -> None:
    """Enqueue `count` keys, half of them in calls of 50,000, which share a moment, and half in calls of 100."""
    lanes = [Options(priority=priority) for priority in (0, 5, 10)]
    keys = ((f"tenant/{number % 97:03}/{number:010}", lanes[number % 3]) for number in range(count))
    for size in (50_000, 100):
        for _ in range(max(count // 2 // size, 1)):
            await queue.queue_many(list(_taken(keys, size)))


def _taken(keys: Iterator[tuple[str, Options]], size: int) -> Iterator[tuple[str, Options]]:
    for _, each in zip(range(size), keys, strict=False):
        yield each


async def milliseconds(queue: FullQueue, cursor: str) -> float:
    """How long a page behind `cursor` takes."""
    began = time.perf_counter()
    await queue.page(PageRequest(Place.QUEUED, LIMIT, cursor))
    return (time.perf_counter() - began) * 1000


async def behind(queue: FullQueue, pages: int) -> str:
    """The cursor behind that many pages of `LIMIT` keys, or behind the last that is full."""
    cursor, left = "", pages * LIMIT
    while left:
        page = await queue.page(PageRequest(Place.QUEUED, min(left, MAX_LIMIT), cursor))
        if not page.cursor:
            break
        cursor, left = page.cursor, left - len(page.keys)
    return cursor


def resident() -> int:
    """Bytes that this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def walk(queue: FullQueue) -> tuple[float, float]:
    """Keys a second over `WALK` pages of 1,000, and how much more memory than after ten there was at most, in MiB."""
    cursor, keys, sizes = "", 0, []
    began = time.perf_counter()
    for _ in range(WALK):
        page = await queue.page(PageRequest(Place.QUEUED, MAX_LIMIT, cursor))
        keys, cursor = keys + len(page.keys), page.cursor
        sizes.append(resident())
        if not cursor:
            break
    rate = keys / (time.perf_counter() - began)
    return rate, (max(sizes[9:], default=0) - sizes[min(9, len(sizes) - 1)]) / 2**20


async def measured(name: str, url: str, short_url: str, backlog: int) -> list[Row]:
    """The rows of one store."""
    async with open_queue(url) as queue, open_queue(short_url) as short:
        await fill(queue, backlog)
        await fill(short, SHORT)
    async with _opened(url, short_url) as (queue, short):  # anew: nothing of the filling is left
        cold = await milliseconds(queue, "")
        far, short_far = await behind(queue, 1000), await behind(short, 5)
        took: dict[str, list[float]] = {"first": [], "far": [], "short": []}
        for _ in range(ROUNDS):
            took["first"].append(await milliseconds(queue, ""))
            took["far"].append(await milliseconds(queue, far))
            took["short"].append(await milliseconds(short, short_far))
        rate, grown = await walk(queue)
    first, deep, small = (median(took[which]) for which in ("first", "far", "short"))
    return [
        (f"{name}: the first page of {backlog:,} keys, just opened", f"{cold:.1f} ms", f"{ASKED_MS} ms"),
        (f"{name}: the first page again", f"{first:.1f} ms", ""),
        (f"{name}: page 1,000", f"{deep:.1f} ms: {deep / first:.2f} times the first", ""),
        (f"{name}: a page of a queue of {SHORT:,}", f"{small:.1f} ms", ""),
        (f"{name}: {WALK} pages of {MAX_LIMIT:,}", f"{rate:,.0f} keys/s, {grown:+.1f} MiB", "flat"),
    ]


@asynccontextmanager
async def _opened(url: str, short_url: str) -> AsyncIterator[tuple[FullQueue, FullQueue]]:
    async with open_queue(url) as queue, open_queue(short_url) as short:
        yield queue, short


def redis(backlog: int) -> list[Row]:
    """On a Redis of its own."""
    with RedisServer() as server:
        return asyncio.run(measured("Redis", server.url("long"), server.url("short"), backlog))


def sqlite(backlog: int) -> list[Row]:
    """On a file of its own; filled without an fsync, which pages have nothing to do with."""
    with TemporaryDirectory() as folder:
        urls = [f"sqlite:///{Path(folder) / name}.db?synchronous=normal" for name in ("long", "short")]
        return asyncio.run(measured("SQLite", urls[0], urls[1], backlog))


STORES = {"redis": redis, "sqlite": sqlite}


def show(description: str | None, stores: Mapping[str, Callable[[int], list[Row]]]) -> None:
    """Measure the stores that the command line asks for, at the backlog that it asks for, and print a table."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--only", choices=stores)
    arguments = parser.parse_args()
    table = Table("what", "measured", "asked")
    for name, store in stores.items():
        for row in store(arguments.backlog) if arguments.only in (None, name) else ():
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    show(__doc__, STORES)
