"""The bucket backend against our emulator: requests a key, share of the emulator's own rate, a large backlog, memory.

`python -m benchmarks.gcs` prints a table in some minutes; the figures are ratios and counts, measured in one run on one
machine. BENCH_KEYS and BENCH_BACKLOG change its sizes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from statistics import median, quantiles
from typing import Any
from urllib.parse import quote

import aiohttp
import uvloop
from yarl import URL

from dispatcher.loop import Dispatcher
from dispatcher.settings import DispatcherSettings
from tests.fakes.gcs.process import GcsProcess
from workqueue.attempt import Attempt
from workqueue.backends.gcs.address import GCSSettings
from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.backends.gcs.listing.kept import Kept
from workqueue.backends.gcs.listing.packed import Candidate
from workqueue.backends.gcs.metadata import entry_of
from workqueue.optional import LeaseRequest

KEYS = int(os.environ.get("BENCH_KEYS", "10000"))
BACKLOG = int(os.environ.get("BENCH_BACKLOG", "300000"))
CONCURRENCY, BATCH = 100, 25
METADATA = {"priority": "00000000", "not-before": "0001-01-01T00:00:00Z", "queued-time": "2026-11-22T08:00:00.000000Z"}


def settings(server: GcsProcess, **changes: Any) -> GCSSettings:
    return dataclasses.replace(GCSSettings("wq", endpoint=server.url, anonymous=True), **changes)


def fill(server: GcsProcess, count: int, prefix: str = "queued/", **metadata: str) -> None:
    server.admin("POST", "remove", bucket="wq", prefix="")
    server.admin("POST", "fill", bucket="wq", prefix=prefix, count=count, metadata=METADATA | metadata)
    server.admin("POST", "reset")


def requests(server: GcsProcess) -> Counter[str]:
    return Counter(server.admin("GET", "counts")["requests"])


async def at_most(width: int, count: int, step: Callable[[int], Awaitable[None]]) -> None:
    """Take steps 0 to count - 1, `width` at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await step(number)

    await asyncio.gather(*(worker() for _ in range(width)))


async def bare_rate(server: GcsProcess) -> float:
    """Requests a second of an aiohttp client that starts and completes keys and looks at nothing."""
    fill(server, KEYS)
    root = f"{server.url}/storage/v1/b/wq/o/"
    body = b'{"metadata":{"priority":"00000000","attempts":"1","lease-token":"x"}}'
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY)) as session:

        async def send(method: str, path: str, data: bytes | None = None) -> None:
            async with session.request(method, URL(root + path, encoded=True), data=data) as response:
                await response.read()

        async def cycle(number: int) -> None:
            queued, running = quote(f"queued/{number:09d}", safe=""), quote(f"in-progress/{number:09d}", safe="")
            await send("POST", f"{queued}/copyTo/b/wq/o/{running}?ifGenerationMatch=0", body)
            await send("DELETE", queued)
            await send("DELETE", running)

        began = time.perf_counter()
        await at_most(CONCURRENCY, KEYS, cycle)
        return sum(requests(server).values()) / (time.perf_counter() - began)


async def drain(server: GcsProcess, **changes: Any) -> tuple[float, Counter[str]]:
    """Requests a second, and which, of a dispatcher that drains a bucket of no-ops."""
    fill(server, KEYS)
    done = 0
    everything = asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        nonlocal done
        done += 1
        if done == KEYS:
            everything.set()

    async with GCSQueue(settings(server, **changes)) as queue:
        began = time.perf_counter()
        async with Dispatcher(queue, callback, DispatcherSettings(concurrency=CONCURRENCY)):
            await asyncio.wait_for(everything.wait(), 300)
        took = time.perf_counter() - began
    counts = requests(server)
    return sum(counts.values()) / took, counts


async def latency(server: GcsProcess, refresh: timedelta) -> tuple[float, float, float]:
    """Seconds to list a backlog, then the median and the 95th percentile from a free slot to a started key."""
    fill(server, BACKLOG)
    took: list[float] = []
    async with GCSQueue(settings(server, refresh=refresh)) as queue:
        began = time.perf_counter()
        while not (await queue.lease(LeaseRequest(10, 10))).started:
            await queue.wait(timedelta(seconds=1), 10)
        listed = time.perf_counter() - began
        for _ in range(200):
            asked = time.perf_counter()
            (owned,) = (await queue.lease(LeaseRequest(1, 11))).started
            took.append(time.perf_counter() - asked)
            await owned.complete()
            await asyncio.sleep(0.05)
    return listed, median(took), quantiles(took, n=20)[-1]


def bytes_a_key() -> float:
    """Memory of the kept listing for a key with a 24-byte name, as the allocator counts it."""
    tracemalloc.start()
    kept = Kept(keep=10**9)
    before, _ = tracemalloc.get_traced_memory()
    for page in range(100):
        rows = []
        for number in range(1000):
            stored = Stored("", 1_750_000_000_000_000 + number, 1, 1_750_000_000_000_000, 0, METADATA)
            key = f"customer-{page:05d}/{number:09d}"
            rows.append(Candidate(key, stored, entry_of(METADATA, key, stored.created_us, 0), listed=True))
        kept.add_page(rows, 1_900_000_000_000_000, {})
    rows = []
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / kept.ready


async def lost_starts(server: GcsProcess, dispatchers: int, **changes: Any) -> tuple[float, int]:
    """The share of starts that another dispatcher was faster with, and the most callbacks that ran at once."""
    fill(server, KEYS)
    running, most, done = 0, 0, 0
    everything = asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        done += 1
        if done == KEYS:
            everything.set()

    queues = [GCSQueue(settings(server, **changes)) for _ in range(dispatchers)]
    for queue in queues:
        await queue.__aenter__()
    loops = [
        Dispatcher(queue, callback, DispatcherSettings(concurrency=CONCURRENCY, batch_size=BATCH)) for queue in queues
    ]
    for loop in loops:
        await loop.__aenter__()
    await asyncio.wait_for(everything.wait(), 300)
    for loop in loops:
        await loop.__aexit__(None, None, None)
    for queue in queues:
        await queue.__aexit__(None, None, None)
    log = server.admin("GET", "log")
    copies = [entry for entry in log if entry["operation"] == "copy" and entry["name"].startswith("in-progress/")]
    return sum(entry["status"] != 200 for entry in copies) / len(copies), most


def row(what: str, beside: str, found: str, wanted: str = "") -> None:
    print(f"| {what} | {beside} | {found} | {wanted} |", flush=True)


async def rates(server: GcsProcess) -> None:
    """Draining by one dispatcher, beside a client that only sends."""
    runs = [(await bare_rate(server), *await drain(server)) for _ in range(3)]
    bare, rate, counts = sorted(runs, key=lambda run: run[1] / run[0])[1]
    row(f"draining {KEYS:,} keys: requests a key", "counted", f"{sum(counts.values()) / KEYS:.2f}", "at most 5")
    row("of which lists", "counted", f"{counts['list'] / KEYS:.3f}")
    sent = f"a bare client, {bare:,.0f} requests/s; median of 3"
    row("its request rate", sent, f"{rate / bare:.2f} times", "at least 0.5 times")
    _, counts = await drain(server, exact=True)
    row("draining with `exact=true`: requests a key", "counted", f"{sum(counts.values()) / KEYS:.2f}", "one pair more")


async def races(server: GcsProcess) -> None:
    """Several dispatchers on one bucket: starts that were lost, and how many callbacks ran at once."""
    for dispatchers, exact in ((2, False), (4, False), (4, True)):
        lost, most = await lost_starts(server, dispatchers, exact=exact)
        counts = requests(server)
        which = f"{dispatchers} dispatchers" + ", `exact=true`" * exact
        row(f"{which}: starts lost to another", "counted", f"{lost:.1%}", "under 5 % with 4")
        limit = CONCURRENCY if exact else CONCURRENCY + (dispatchers - 1) * BATCH
        row("most callbacks at once", f"limit {CONCURRENCY}, batch {BATCH}", str(most), f"at most {limit}")
        row("requests a key", "counted", f"{sum(counts.values()) / KEYS:.2f}")


async def backlog(server: GcsProcess) -> None:
    """A backlog that takes hundreds of pages to list."""
    row("kept listing: bytes a key (24-byte names)", "the allocator", f"{bytes_a_key():.0f}", "under 200")
    for when, refresh in (("", timedelta(hours=1)), (" while it is listed again", timedelta(seconds=1))):
        listed, usual, most_s = await latency(server, refresh)
        found = f"{usual * 1e3:.1f} ms, p95 {most_s * 1e3:.0f} ms"
        row(f"{BACKLOG:,} keys queued: free slot to started key{when}", f"listing took {listed:.0f} s", found, "100 ms")


async def main() -> None:
    row("GCS", "beside what", "measured", "asked")
    row("---", "---", "---", "---")
    with GcsProcess() as server:
        for part in (rates, races, backlog):
            began = time.perf_counter()
            await part(server)
            print(f"{part.__name__}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("NO_GCE_CHECK", "true")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    sys.exit(0)
