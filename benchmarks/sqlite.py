"""What the SQLite queue costs, fsync on, beside raw SQLite writes: group commit, cycles, backlog, waking, idling.

`python -m benchmarks.sqlite [--backlog N] [--folder DIR]`. Rounds of what is compared are interleaved and medians
taken, so that a machine or a disk that slows down slows both. The raw writer is a bare `sqlite3` connection that
inserts one row a key, as long as ours and unique by key as ours: one statement each, and a transaction with an fsync
every 100 rows.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from workqueue import Options, open_queue
from workqueue.fallbacks import FullQueue
from workqueue.optional import LeaseRequest

CONCURRENCY = 100
KEYS = 5_000
ROUNDS = 5
SETTINGS = DispatcherSettings(concurrency=CONCURRENCY)

Measured = Callable[[], Awaitable[float]]


def random_key() -> str:
    return f"key-{random.getrandbits(64):016x}"


@asynccontextmanager
async def opened(folder: Path, name: str) -> AsyncIterator[FullQueue]:
    async with open_queue(f"sqlite:///{folder}/{name}.db") as queue:
        yield queue


# raw SQLite


def raw_connection(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / f"raw-{random_key()}.db", isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(
        "CREATE TABLE raw (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, place INTEGER, priority INTEGER,"
        " attempts INTEGER, queued_us INTEGER, first_us INTEGER, not_before_us INTEGER, floor INTEGER, stamp INTEGER)"
    )
    return connection


def raw_row(number: int) -> tuple[object, ...]:
    return (random_key(), 0, 0, 0, time.time_ns() // 1000, time.time_ns() // 1000, 0, 0, 2**61 + number)


RAW_INSERT = f"INSERT INTO raw VALUES (NULL, {', '.join('?' * 9)})"


def raw_grouped(folder: Path) -> Measured:
    connection = raw_connection(folder)

    async def measure() -> float:
        rows = [raw_row(number) for number in range(KEYS)]
        began = time.perf_counter()
        for first in range(0, KEYS, 100):
            connection.execute("BEGIN IMMEDIATE")
            for row in rows[first : first + 100]:
                connection.execute(RAW_INSERT, row)
            connection.execute("COMMIT")
        return KEYS / (time.perf_counter() - began)

    return measure


async def raw_commit(folder: Path, times: int) -> float:
    """Seconds that one row and its fsync take on a disk that was idle, as it is before the enqueues below."""
    connection = raw_connection(folder)
    took = []
    for number in range(times):
        await asyncio.sleep(a_while())
        row = raw_row(number)
        began = time.perf_counter()
        connection.execute(RAW_INSERT, row)
        took.append(time.perf_counter() - began)
    return median(took)


def a_while() -> float:
    return 0.05 + random.random() / 20


# ours


def enqueues(queue: FullQueue, callers: int) -> Measured:
    """Enqueues per second by so many concurrent callers."""

    async def measure() -> float:
        count = callers * (200 if callers == 1 else 30)
        left = iter(range(count))

        async def caller() -> None:
            for _ in left:
                await queue.queue(random_key())

        began = time.perf_counter()
        await asyncio.gather(*[caller() for _ in range(callers)])
        return count / (time.perf_counter() - began)

    return measure


def cycles(queue: FullQueue, backlog: int) -> Measured:
    """Seconds a key through the dispatcher, from enqueue to completion, while so many random keys are queued."""

    async def measure() -> float:
        done = asyncio.Event()
        left = KEYS

        async def reconcile(key: str, attempt: Attempt) -> None:
            nonlocal left
            await queue.queue(random_key())
            left -= 1
            if left <= 0:
                done.set()

        await fill(queue, backlog)
        began = time.perf_counter()
        async with Dispatcher(queue, reconcile, SETTINGS):
            await done.wait()
            return (time.perf_counter() - began) / KEYS

    return measure


async def fill(queue: FullQueue, backlog: int) -> None:
    while (missing := backlog - (await queue.counts()).queued) > 0:
        await queue.queue_many([(random_key(), Options()) for _ in range(min(missing, 20_000))])


async def woken(queue: FullQueue, enqueue: Callable[[], Awaitable[None]], times: int) -> list[float]:
    """Seconds from just before an enqueue, as the key's name tells, until a dispatcher that waited has leased it."""
    took = []
    for _ in range(times):
        waiting = asyncio.ensure_future(lease_one(queue))
        await asyncio.sleep(a_while())
        await enqueue()
        key, at = await waiting
        took.append(at - float(key))
    return took


async def lease_one(queue: FullQueue) -> tuple[str, float]:
    while True:
        await queue.wait(timedelta(seconds=60), CONCURRENCY)
        for owned in (await queue.lease(LeaseRequest(1, CONCURRENCY))).started:
            at = time.perf_counter()
            await owned.complete()
            return owned.key, at


ENQUEUER = """
import asyncio, sys, time
from workqueue import open_queue

async def main():
    async with open_queue(sys.argv[1]) as queue:
        while sys.stdin.readline():
            await queue.queue(repr(time.perf_counter()))

asyncio.run(main())
"""


async def woken_by_another_process(folder: Path, queue: FullQueue, times: int) -> list[float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ENQUEUER, f"sqlite:///{folder}/idle.db", stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    pipe = process.stdin

    async def enqueue() -> None:
        pipe.write(b"\n")
        await pipe.drain()

    try:
        return await woken(queue, enqueue, times)
    finally:
        pipe.close()
        await process.wait()


async def woken_by_this_process(queue: FullQueue, times: int) -> list[float]:
    return await woken(queue, lambda: queue.queue(repr(time.perf_counter())), times)


async def idle_share(queue: FullQueue, seconds: float) -> float:
    """CPU seconds per second of a dispatcher with nothing to do."""

    async def reconcile(key: str, attempt: Attempt) -> None:
        pass

    async with Dispatcher(queue, reconcile, SETTINGS):
        await asyncio.sleep(0.5)
        began = time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - began) / seconds


async def interleaved(*measured: Measured) -> list[float]:
    """The medians of several rounds in which each is measured once, after a first round that warms up."""
    results: list[list[float]] = [[] for _ in measured]
    for number in range(ROUNDS + 1):
        for result, measure in zip(results, measured, strict=True):
            gc.collect()
            value = await measure()
            if number:
                result.append(value)
    return [median(result) for result in results]


async def compare(folder: Path, backlog: int) -> None:
    async with opened(folder, "busy") as queue:
        alone, together = await interleaved(enqueues(queue, 1), enqueues(queue, 64))
        show("enqueues by 1 caller", f"{alone:,.0f}/s")
        show("enqueues by 64 callers", f"{together:,.0f}/s", f"{together / alone:.1f} times (at least 10)")
        cycle, raw = await interleaved(cycles(queue, 1000), raw_grouped(folder))
        show("raw writes, 100 a transaction", f"{raw:,.0f}/s")
        show("full cycles, 100 at a time", f"{1 / cycle:,.0f}/s", f"ratio {1 / cycle / raw:.2f} (at least 0.25)")
    async with opened(folder, "small") as small, opened(folder, "large") as large:
        few, many = await interleaved(cycles(small, 1000), cycles(large, backlog))
        show("full cycle at 1,000 queued", f"{few * 1e6:,.0f} us a key")
        more = f"{(many - few) * 1e6:+.0f} us (at most +45)"
        show(f"full cycle at {backlog:,} queued", f"{many * 1e6:,.0f} us a key", more)


async def wait_and_idle(folder: Path) -> None:
    async with opened(folder, "idle") as queue:
        commit = await raw_commit(folder, 100)
        show("one raw commit, idle, p50", f"{commit * 1e3:.2f} ms")
        waits = sorted(await woken_by_this_process(queue, 100))
        limit = f"(below two commits + 1 = {commit * 2e3 + 1:.2f})"
        show("enqueue to lease, idle, p50", f"{median(waits) * 1e3:.2f} ms", limit)
        waits = sorted(await woken_by_another_process(folder, queue, 100))
        show("… from another process, p50", f"{median(waits) * 1e3:.1f} ms", "(below 50)")
        show("… from another process, p99", f"{waits[98] * 1e3:.1f} ms")
        show("idle CPU", f"{await idle_share(queue, 10):.2%}", "(below 1 %)")


def show(what: str, value: str, remark: str = "") -> None:
    print(f"{what:<34} {value:>14}   {remark}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure; default: the temporary one")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        asyncio.run(compare(folder, arguments.backlog))
        asyncio.run(wait_and_idle(folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
