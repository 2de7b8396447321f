"""What the Redis queue costs by itself: the exact limit, a large backlog, several dispatchers, a crash, memory, shards.

`python -m benchmarks.redis_queue [--backlog N] [--only NAME …]`. Redis is pinned to one core and whoever is measured to
another. What is compared is measured in turns and medians taken; CPU per key is given beside rates, because it is what
stays the same on a machine that others use too. Ends with a table of what was measured beside what is asked; each part
takes at most some two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.redis_processes import Row, crash, restart, server_cpu, several
from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.fakes.redis_server import RedisCluster, RedisServer
from workqueue import Options, open_queue
from workqueue.optional import Leased, LeaseRequest
from workqueue.rpc.sharding import by_fnv

ROUNDS = 5
BACKLOG_ROUNDS = 15
KEYS = 20_000
_PLAIN = Options()


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[RedisServer]:
    """A server on the first of these cores, and this process and its children on the others."""
    os.sched_setaffinity(0, {cores[0]})  # which the server inherits
    with RedisServer() as server:
        os.sched_setaffinity(0, set(cores[1:]) or set(cores))
        yield server


async def fill(queue: Any, count: int, prefix: str = "k") -> None:
    await queue.queue_many([(f"{prefix}{number:023}", _PLAIN) for number in range(count)])


class Limited:
    """The queue under a limit of its own, whatever the dispatcher asks for; as many in flight as before."""

    def __init__(self, queue: Any, concurrency: int) -> None:
        self._queue = queue
        self._concurrency = concurrency

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    async def lease(self, request: LeaseRequest) -> Leased:
        leased: Leased = await self._queue.lease(replace(request, concurrency=self._concurrency))
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


async def limit(server: RedisServer) -> list[Row]:
    """Draining with 100 in flight, under a limit of 100 and under none."""
    async with open_queue(server.url()) as queue:
        found: dict[str, list[tuple[float, float, float]]] = {"100": [], "10⁹": []}
        for _ in range(2 * ROUNDS):  # the difference is small
            for name, side in (("100", Limited(queue, 100)), ("10⁹", Limited(queue, 10**9))):
                await fill(queue, KEYS)
                before = server_cpu(server)
                seconds, cpu = await drain(side, KEYS)
                found[name].append((KEYS / seconds, cpu / KEYS * 1e6, (server_cpu(server) - before) / KEYS * 1e6))
    rows = []
    for name, rounds in found.items():
        rate, client, redis = (median(column) for column in zip(*rounds, strict=True))
        told = f"{rate:,.0f}/s; CPU a key: {client:.1f} µs here, {redis:.1f} µs in Redis"
        rows.append(Row(f"drain, 100 in flight, limit {name}", told))
    cost = 1 - median(limited[0] / free[0] for limited, free in zip(*found.values(), strict=True))
    return [*rows, Row("what the exact limit costs of the drain rate, in pairs", f"{cost:.1%}", "< 10 %", cost < 0.1)]


async def backlog(server: RedisServer, size: int) -> list[Row]:
    """The same steps at 1,000 queued keys and at a large backlog, in turns, and what a key takes."""
    async with open_queue(server.url("small")) as small, open_queue(server.url("large")) as large:
        await fill(small, 1000, "b")
        empty = server.ask("INFO", "memory")["used_memory"]
        await fill(large, size, "b")
        taken = (server.ask("INFO", "memory")["used_memory"] - empty) / size
        shares = await compared(server, small, large)
    rows = [Row(f"used_memory a queued key of 24 bytes, at {size:,}", f"{taken:.0f} bytes", "< 250", taken < 250)]
    for name, (share, by_cpu) in shares.items():
        told = f"{share:.0%} of the rate at 1,000; Redis's CPU a key {by_cpu:.2f} times"
        rows.append(Row(f"{name} at {size:,} queued", told, "≥ 80 %", share >= 0.8))
    return rows


async def compared(server: RedisServer, small: Any, large: Any) -> dict[str, tuple[float, float]]:
    """For each step the median, over turns, of small's seconds by large's; and of Redis's CPU, large by small.

    What is enqueued is taken out again, so that the backlogs stay. A machine that others use changes its speed between
    two runs by more than the backlog does, hence the turns.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for turn in range(BACKLOG_ROUNDS):
        taken = [await steps(server, queue, turn) for queue in ((small, large) if turn % 2 else (large, small))]
        at_small, at_large = taken if turn % 2 else taken[::-1]
        for name, (seconds, cpu) in at_small.items():
            found[name].append((seconds / at_large[name][0], at_large[name][1] / cpu))
    return {name: (median(s for s, _ in ratios), median(c for _, c in ratios)) for name, ratios in found.items()}


async def steps(server: RedisServer, queue: Any, turn: int) -> dict[str, tuple[float, float]]:
    """Seconds, and seconds of Redis's CPU, of each step."""
    found = {}
    for name, step in (
        ("enqueue", partial(fill, queue, KEYS, f"{turn}-")),
        ("lease and complete", partial(lease_and_complete, queue, KEYS // 2)),
        ("drain", partial(drain, queue, KEYS // 2)),
    ):
        before = server_cpu(server)
        seconds = await seconds_of(step)
        found[name] = seconds, server_cpu(server) - before
    return found


async def seconds_of(step: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await step()
    return time.perf_counter() - began


async def lease_and_complete(queue: Any, count: int) -> None:
    for _ in range(count // 100):
        started = (await queue.lease(LeaseRequest(100, 10**6))).started
        await asyncio.gather(*(owned.complete() for owned in started))


async def memory(server: RedisServer) -> list[Row]:
    """This process's memory while it dispatches a million keys."""
    sizes = []
    async with open_queue(server.url()) as queue:
        for _ in range(20):
            await fill(queue, 50_000)
            await drain(queue, 50_000)
            sizes.append(resident_mib())
    least, middle, most = min(sizes[1:]), median(sizes[1:]), max(sizes[1:])
    spread = max(most / middle, middle / least) - 1
    told = f"{least:.1f} to {most:.1f} MiB, ±{spread:.1%}"
    return [Row("memory of a dispatcher over 1,000,000 keys", told, "±5 %", spread <= 0.05)]


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024


async def shards(server: RedisServer) -> list[Row]:
    """One queue, and three that share the keys by hash, on a cluster of three: what its busiest node has to do.

    Here the nodes share one core and one process dispatches, so that it is the node's CPU a key that counts.
    """
    rows, costs = [], {}
    with RedisCluster() as cluster:
        for node in cluster.nodes:
            os.sched_setaffinity(node.pid, os.sched_getaffinity(server.pid))
        names = shard_names(cluster)
        for count in (1, 3):
            rates, busiest = [], []
            for _ in range(ROUNDS):
                rate, cost = await drained(cluster, names[:count])
                rates.append(rate)
                busiest.append(cost)
            costs[count] = median(busiest)
            told = f"{median(rates):,.0f}/s from one process; busiest node {costs[count] * 1e6:.1f} µs of CPU a key"
            rows.append(Row(f"{count} queues on a cluster of 3", told))
    gain = costs[1] / costs[3]
    return [
        *rows,
        Row("what 3 nodes can take, beside one", f"{gain:.1f} times", "3 less what hashing skews", gain >= 2.5),
    ]


async def drained(cluster: RedisCluster, names: list[str]) -> tuple[float, float]:
    """Keys a second over all these queues, and the busiest node's CPU in seconds a key."""
    choose = by_fnv(names)
    parts: list[list[str]] = [[] for _ in names]
    for number in range(KEYS):
        parts[choose(f"k{number:023}")].append(f"k{number:023}")
    async with contextlib.AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(open_queue(cluster.url(name))) for name in names]
        before = [server_cpu(node) for node in cluster.nodes]
        began = time.perf_counter()
        for queue, keys in zip(queues, parts, strict=True):
            await queue.queue_many([(key, _PLAIN) for key in keys])
        await asyncio.gather(*(drain(queue, len(keys)) for queue, keys in zip(queues, parts, strict=True)))
        seconds = time.perf_counter() - began
    busiest = max(server_cpu(node) - used for node, used in zip(cluster.nodes, before, strict=True))
    return KEYS / seconds, busiest / KEYS


def shard_names(cluster: RedisCluster) -> list[str]:
    """Three queue names that are served by three different nodes."""
    found: dict[int, str] = {}
    for number in range(1000):
        name = f"shard-{number}"
        found.setdefault(cluster.node_of(f"{{wq:{name}}}").port, name)
        if len(found) == len(cluster.nodes):
            break
    return list(found.values())


PARTS: dict[str, Callable[[RedisServer, int], list[Row]]] = {
    "limit": lambda server, size: uvloop.run(limit(server)),
    "backlog": lambda server, size: uvloop.run(backlog(server, size)),
    "memory": lambda server, size: uvloop.run(memory(server)),
    "several": lambda server, size: several(server, server.directory),
    "crash": lambda server, size: crash(server, server.directory),
    "restart": lambda server, size: restart(server, server.directory),
    "shards": lambda server, size: uvloop.run(shards(server)),
}


def table(rows: list[Row]) -> Table:
    shown = Table("what", "measured", "asked", "met")
    for row in rows:
        shown.add_row(row.what, row.measured, row.asked, "" if row.is_met is None else "yes" if row.is_met else "NO")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    arguments = parser.parse_args()
    rows, cores = [], sorted(os.sched_getaffinity(0))
    gc.freeze()  # as the dispatcher program does
    for name in arguments.only:
        with pinned(cores) as server:
            began = time.monotonic()
            rows += PARTS[name](server, arguments.backlog)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    Console(width=200).print(table(rows))


if __name__ == "__main__":
    main()
