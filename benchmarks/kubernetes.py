"""The Kubernetes source beside a bare list of raw JSON pages, on one server, in turns.

    python -m benchmarks.kubernetes [--objects 100000] [--rounds 3]

The server is a process that sends bytes which it has made before. What is compared is CPU time of the client, so that
others on the machine do not decide; seconds by the clock are beside it. What measures memory is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from workqueue.backends.memory.backend import MemoryQueue
from workqueue.options import Options
from workqueue.sources.kubernetes import API, KubernetesSource, Watch, name_of, nothing

PODS = "/api/v1/pods"


@contextlib.contextmanager
def serving(objects: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.kubernetes_server", str(objects)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[API]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config"
        cluster = {"name": "x", "cluster": {"server": url}}
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        config = {
            "clusters": [cluster],
            "users": [{"name": "x", "user": {}}],
            "contexts": [context],
            "current-context": "x",
        }
        file.write_text(json.dumps(config))
        async with await API.connect(file) as api:
            yield api


async def pages(session: ClientSession, url: str) -> AsyncIterator[bytes]:
    """What a list comes in, read as fast as it comes."""
    more = ""
    while True:
        async with session.get(f"{url}{PODS}?limit=500&continue={more}") as response:
            body = await response.read()
        yield body
        at = body.find(b'"continue":"', 0, 200)
        if at < 0:
            return
        more = body[at + 12 : body.index(b'"', at + 12)].decode()


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - nothing that is measured has an event for it
        await asyncio.sleep(0.001)


class Stopwatch:
    """Seconds of this process's CPU, and by the clock."""

    def __init__(self) -> None:
        self.began = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        return time.process_time() - self.began[0], time.perf_counter() - self.began[1]


async def bare(url: str, *, parse: bool) -> tuple[float, float]:
    """What a bare list takes: read every page, and parse it or not."""
    began = Stopwatch()
    async with ClientSession(read_bufsize=2**21) as session:
        async for body in pages(session, url):
            if parse:
                json.loads(body)
    return began.read()


class Noting:
    """A queue that notes when it was given which key; what it wraps stores them."""

    def __init__(self, queue: MemoryQueue) -> None:
        self.queue = queue
        self.keys: list[str] = []
        self.times: list[int] = []

    async def queue_many(self, items: Iterable[tuple[str, Options]], /) -> None:
        given = list(items)
        await self.queue.queue_many(given)
        self.keys += [key for key, _ in given]
        self.times += [time.monotonic_ns()] * len(given)


@contextlib.asynccontextmanager
async def source(url: str, watch: Watch) -> AsyncIterator[tuple[KubernetesSource, Noting]]:
    async with connected(url) as api, MemoryQueue() as queue:
        noting = Noting(queue)
        made = KubernetesSource(api, [watch], noting)
        running = asyncio.create_task(made.run())
        try:
            yield made, noting
        finally:
            running.cancel()
            await asyncio.wait([running])


async def listed(url: str, objects: int, watch: Watch) -> tuple[float, float]:
    """What it takes until every object is in the cache and its key in a queue in memory."""
    async with source(url, watch) as (made, noting):
        began = Stopwatch()
        await made.synced()
        await until(lambda: len(noting.keys) >= objects)
        return began.read()


async def emitted(url: str, count: int, rate: float) -> tuple[list[float], float, float]:
    """Milliseconds from sending an event to its key's enqueue; events a second by the clock, and a second of CPU."""
    sent: dict[str, list[int]] = {}

    def keys(pod: Mapping[str, Any]) -> list[str]:
        if moment := pod["metadata"]["annotations"].get("sent"):
            sent.setdefault(name_of(pod), []).append(int(moment))
        return [name_of(pod)]

    async with (
        source(url, Watch("v1/Pod", keys=keys, keep=nothing)) as (made, noting),
        ClientSession(raise_for_status=True) as session,
    ):
        await made.synced()
        await until(lambda: not made.waiting)
        start, began = len(noting.keys), Stopwatch()
        async with session.get(f"{url}/emit?count={count}&rate={rate}") as response:
            await response.read()
            await until(lambda: sum(map(len, sent.values())) >= count and not made.waiting)
        cpu = began.read()[0]
        await asyncio.sleep(0.05)
        lags = []
        for key, moment in zip(noting.keys[start:], noting.times[start:], strict=True):
            while sent[key] and sent[key][0] <= moment:
                lags.append((moment - sent[key].pop(0)) / 1e6)
        assert len(lags) == count, "events were lost"
        return lags, count / ((noting.times[-1] - noting.times[start]) / 1e9), count / cpu


async def relisted(url: str, changed: int) -> tuple[float, int]:
    """Seconds from a 410 until what changed is enqueued, and how many keys were."""
    async with (
        source(url, Watch("v1/Pod", keep=nothing)) as (made, noting),
        ClientSession(raise_for_status=True) as session,
    ):
        await made.synced()
        await until(lambda: not made.waiting)
        start = len(noting.keys)
        async with session.get(f"{url}/gap?changed={changed}") as response:
            await response.read()
        began = time.perf_counter()
        await until(lambda: len(noting.keys) >= start + changed)
        took = time.perf_counter() - began
        await asyncio.sleep(took)  # for keys that should not come
        return took, len(noting.keys) - start


def mib(field: str) -> float:
    """VmRSS (what is resident now) or VmHWM (what was at its highest) of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


async def memory(url: str, objects: int, what: str) -> float:
    """MiB that this process grew by at its highest, for a dict of the objects, a queue of their keys, or the source."""
    async with connected(url):  # what is imported counts for nobody
        pass
    gc.collect()
    before = mib("VmRSS")
    if what == "queue":
        async with MemoryQueue() as queue:
            for number in range(objects):
                await queue.queue(f"team-{number % 50}/web-{number // 100}-{number:06d}", Options(priority=-100))
            return mib("VmHWM") - before
    if what == "source":
        await listed(url, objects, Watch("v1/Pod"))
        return mib("VmHWM") - before
    cache: dict[str, Any] = {}
    async with ClientSession(read_bufsize=2**21) as session:
        async for body in pages(session, url):
            for pod in json.loads(body)["items"]:
                pod["metadata"].pop("managedFields")
                cache[name_of(pod)] = pod
    return mib("VmHWM") - before


def measured(url: str, objects: int, what: str) -> float:
    command = [sys.executable, "-m", "benchmarks.kubernetes", "--url", url, "--objects", str(objects), "--memory", what]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def report(url: str, objects: int, rounds: int) -> None:
    taken: dict[str, list[tuple[float, float]]] = {"bytes": [], "parsed": [], "source": []}
    for _ in range(rounds):
        taken["bytes"].append(asyncio.run(bare(url, parse=False)))
        taken["parsed"].append(asyncio.run(bare(url, parse=True)))
        taken["source"].append(asyncio.run(listed(url, objects, Watch("v1/Pod"))))
    for title, place in (("of CPU", 0), ("by the clock", 1)):
        middle = {what: statistics.median(each[place] for each in values) for what, values in taken.items()}
        print(f"a list of {objects} objects, seconds {title}: " + ", ".join(f"{w} {s:.2f}" for w, s in middle.items()))
        print(f"  a bare list that parses / the source: {middle['parsed'] / middle['source']:.2f} (asked: 0.60)")
    grown = {what: measured(url, objects, what) for what in ("cache", "queue", "source")}
    print("memory, MiB: " + ", ".join(f"{what} {size:.0f}" for what, size in grown.items()))
    beside = (grown["source"] - grown["queue"]) / grown["cache"]
    print(f"  the source without its queue / a dict of the objects: {beside:.2f} (asked: below 1.3)")
    lags, *_ = asyncio.run(emitted(url, 1000, 100))
    print(f"an event on an idle watch, sent to enqueued, ms: {spread(lags)} (asked: p99 below 5)")
    events = min(50_000, 10 * objects)
    lags, rate, capacity = asyncio.run(emitted(url, events, 5000))
    print(f"{events:,} events at up to 5,000 a second: {rate:.0f} a second by the clock, lag in ms: {spread(lags)}")
    print(f"  events a second of the source's CPU: {capacity:.0f} (asked: 5000)")
    changed = min(1000, objects)
    took, enqueued = asyncio.run(relisted(url, changed))
    print(f"after a 410 with {changed:,} of {objects} changed: {enqueued} keys enqueued in {took:.2f} s")
    print(f"  keys enqueued beyond what changed: {enqueued - changed} (asked: 0)")


def spread(lags: list[float]) -> str:
    return ", ".join(f"{name} {quantile(lags, share):.2f}" for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(asyncio.run(memory(options.url, options.objects, options.memory)))
        return
    with serving(options.objects) as url:
        report(url, options.objects, options.rounds)


if __name__ == "__main__":
    main()
