"""What the Redis queue costs by itself: the exact limit, a large backlog, several dispatchers, a crash, memory, shards.

`python -m benchmarks.redis_queue [--backlog N] [--only NAME …]`. Redis is pinned to one core and whoever is measured to
another. What is compared is measured in turns and medians taken; CPU per key is given beside rates, because it is what
stays the same on a machine that others use too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks.contenders.journal import read
from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.fakes.redis_server import RedisCluster, RedisServer
from workqueue import Options, open_queue
from workqueue.interface import Leased, LeaseRequest

ROUNDS = 5
KEYS = 20_000
_PLAIN = Options()


def server_cpu(server: RedisServer) -> float:
    """Seconds of CPU that the server has used."""
    return int(Path(f"/proc/{server.pid}/schedstat").read_text().split()[0]) / 1e9


def pin(server: RedisServer) -> None:
    cores = sorted(os.sched_getaffinity(server.pid))
    os.sched_setaffinity(server.pid, {cores[0]})
    os.sched_setaffinity(0, {cores[-1]})


async def fill(queue: Any, count: int, prefix: str = "k") -> None:
    await queue.queue_many([(f"{prefix}{number:023}", _PLAIN) for number in range(count)])


class Unlimited:
    """The queue with a limit that is never met; as many in flight as before."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    async def lease(self, request: LeaseRequest) -> Leased:
        leased: Leased = await self._queue.lease(replace(request, concurrency=10**9))
        return leased


async def drain(queue: Any, count: int, in_flight: int = 100) -> tuple[float, float]:
    """Dispatch `count` no-ops; seconds, and seconds of this process's CPU."""
    done, left = asyncio.Event(), count

    async def noop(key: str, attempt: Attempt) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    began, cpu = time.perf_counter(), time.process_time()
    async with Dispatcher(queue, noop, DispatcherSettings(concurrency=in_flight)):
        await done.wait()
    return time.perf_counter() - began, time.process_time() - cpu


async def limit(server: RedisServer) -> None:
    """Draining with 100 in flight, under a limit of 100 and under none."""
    async with open_queue(server.url()) as queue:
        found: dict[str, list[tuple[float, float, float]]] = {"limit 100": [], "limit 10⁹": []}
        for _ in range(ROUNDS):
            for name, side in (("limit 100", queue), ("limit 10⁹", Unlimited(queue))):
                await fill(queue, KEYS)
                before = server_cpu(server)
                seconds, cpu = await drain(side, KEYS)
                found[name].append((KEYS / seconds, cpu / KEYS * 1e6, (server_cpu(server) - before) / KEYS * 1e6))
    for name, rounds in found.items():
        rate, client, redis = (median(column) for column in zip(*rounds, strict=True))
        print(f"drain, {name}: {rate:,.0f}/s; CPU a key: {client:.1f} µs here, {redis:.1f} µs in Redis")


async def backlog(server: RedisServer, size: int) -> None:
    """The same steps at 1,000 queued keys and at a large backlog, and what a key takes."""
    async with open_queue(server.url()) as queue:
        small = await steps(server, queue, 1000)
        empty = server.ask("INFO", "memory")["used_memory"]
        await fill(queue, size, "b")
        taken = server.ask("INFO", "memory")["used_memory"] - empty
        print(f"used_memory a key at {size:,} keys: {taken / size:.0f} bytes")
        large = await steps(server, queue, size)
    for name in small:
        print(
            f"{name} at {size:,} keys: {small[name] / large[name]:.0%} of the rate at 1,000 ({1 / large[name]:,.0f}/s)"
        )


async def steps(server: RedisServer, queue: Any, size: int) -> dict[str, float]:
    """Seconds of CPU, here and in Redis, a key; what is enqueued is taken out again."""
    found: dict[str, list[float]] = {"enqueue": [], "lease and complete": [], "drain": []}
    for turn in range(ROUNDS):
        for name, step in (
            ("enqueue", partial(fill, queue, KEYS // 2, f"{turn}-")),
            ("lease and complete", lambda: lease_and_complete(queue, KEYS // 4)),
            ("drain", lambda: drain(queue, KEYS // 4)),
        ):
            found[name].append(await cpu_of(server, step) / (KEYS // 2 if name == "enqueue" else KEYS // 4))
    return {name: median(seconds) for name, seconds in found.items()}


async def cpu_of(server: RedisServer, step: Callable[[], Awaitable[object]]) -> float:
    began = time.process_time() + server_cpu(server)
    await step()
    return time.process_time() + server_cpu(server) - began


async def lease_and_complete(queue: Any, count: int) -> None:
    for _ in range(count // 100):
        started = (await queue.lease(LeaseRequest(100, 10**6))).started
        await asyncio.gather(*(owned.complete() for owned in started))


async def memory(server: RedisServer) -> None:
    """This process's memory while it dispatches a million keys."""
    sizes = []
    async with open_queue(server.url()) as queue:
        for _ in range(20):
            await fill(queue, 50_000)
            await drain(queue, 50_000)
            sizes.append(resident_mib())
    print(f"memory of a dispatcher over 1,000,000 keys: {min(sizes[1:]):.1f} to {max(sizes[1:]):.1f} MiB")


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024


def worker(url: str, journal: Path, **environment: str) -> subprocess.Popen[bytes]:
    base, _, settings = url.partition("?")
    env = {
        **os.environ,
        "BENCHMARK_REDIS": base,
        "BENCHMARK_SETTINGS": f"?{settings}",
        "BENCHMARK_JOURNAL": str(journal),
        **environment,
    }
    command = [sys.executable, "-m", "benchmarks.contenders.drive", "ours", "work"]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def several(server: RedisServer, folder: Path) -> None:
    """One, two and four dispatcher processes on one Redis."""
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    for processes in (1, 2, 4):
        journal = folder / f"several-{processes}"
        asyncio.run(filled(server.url(), 60_000))
        before = server_cpu(server)
        workers = [worker(server.url(), journal, BENCHMARK_LIMIT=str(100 * processes)) for _ in range(processes)]
        wait_for(journal, 60_000)
        times = sorted(at for _, at in read(journal))
        for process in workers:
            process.terminate()
            process.wait()
        seconds = (times[-1] - times[0]) / 1e9
        share = (server_cpu(server) - before) / seconds
        print(f"{processes} dispatcher processes: {60_000 / seconds:,.0f}/s; Redis uses {share:.0%} of a core")


async def filled(url: str, count: int) -> None:
    async with open_queue(url) as queue:
        await queue.queue_many([(f"key-{number:020}", _PLAIN) for number in range(count)])


def crash(server: RedisServer, folder: Path) -> None:
    """kill -9 of one of two dispatchers in mid-drain, and an orderly restart of one."""
    for how, number in (("kill -9", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
        journal, url = folder / f"crash-{how}", server.url("crash", lease="5s")
        asyncio.run(filled(url, 1000))
        settings = {"BENCHMARK_PAUSE": "0.05", "BENCHMARK_LIMIT": "40", "BENCHMARK_BACKOFF": "0.01"}
        workers = [worker(url, journal, **settings) for _ in range(2)]
        wait_for(journal, 600)
        workers[0].send_signal(number)
        ended = time.monotonic()
        workers[0].wait()
        workers.append(worker(url, journal, **settings) if how == "SIGTERM" else workers[1])
        while asyncio.run(left(url)):
            time.sleep(0.05)
        began = [key for key, _ in read(journal) if not key >> 63]
        again = len(began) - len(set(began))
        print(f"{how} of one of two: all of 1,000 done {time.monotonic() - ended:.1f} s later; {again} were run again")
        for process in workers:
            process.terminate()
            process.wait()


async def left(url: str) -> int:
    async with open_queue(url) as queue:
        counts = await queue.counts()
    return counts.queued + counts.not_before + counts.twins + counts.in_progress


async def shards() -> None:
    """One queue, and three that share the keys, on a cluster of three; sharded as hyperqueue does."""
    with RedisCluster() as cluster:
        names = shard_names(cluster)
        for shard_count in (1, 3):
            used = [cpu for node in cluster.nodes if (cpu := server_cpu(node))]
            async with contextlib.AsyncExitStack() as stack:
                queues = [
                    await stack.enter_async_context(open_queue(cluster.url(name))) for name in names[:shard_count]
                ]
                for queue in queues:
                    await fill(queue, KEYS // shard_count)
                began = time.perf_counter()
                await asyncio.gather(*(drain(queue, KEYS // shard_count) for queue in queues))
                seconds = time.perf_counter() - began
            busiest = max(server_cpu(node) - before for node, before in zip(cluster.nodes, used, strict=True))
            rate = KEYS / seconds
            print(
                f"{shard_count} queues on 3 nodes: {rate:,.0f}/s from one process; busiest node {busiest / seconds:.0%}"
            )


def shard_names(cluster: RedisCluster) -> list[str]:
    """Three queue names that are served by three different nodes."""
    found: dict[int, str] = {}
    for number in range(1000):
        name = f"shard-{number}"
        found.setdefault(cluster.node_of(f"{{wq:{name}}}").port, name)
        if len(found) == len(cluster.nodes):
            break
    return list(found.values())


def wait_for(journal: Path, count: int) -> None:
    until = time.monotonic() + timedelta(minutes=2).total_seconds()
    while not (journal.exists() and journal.stat().st_size >= 16 * count):
        if time.monotonic() > until:
            raise TimeoutError(f"{journal.name} has fewer than {count} entries")
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="*", default=["limit", "backlog", "memory", "several", "crash", "shards"])
    arguments = parser.parse_args()
    for name in arguments.only:
        with RedisServer() as server:
            pin(server)
            if name == "limit":
                uvloop.run(limit(server))
            elif name == "backlog":
                uvloop.run(backlog(server, arguments.backlog))
            elif name == "memory":
                uvloop.run(memory(server))
            elif name == "several":
                several(server, server.directory)
            elif name == "crash":
                crash(server, server.directory)
            else:
                uvloop.run(shards())


if __name__ == "__main__":
    main()
