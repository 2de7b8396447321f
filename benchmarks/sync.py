"""`workqueue.sync` on Redis beside the queue that it calls: 32 threads, 32 coroutines; one call at a time.

`python -m benchmarks.sync`. Some 20 s. Redis is on the first core and the callers on the others. Both are measured in
turns, on asyncio's own loop, and medians are compared. Ends with what is asked: the threads reach a quarter of the rate
of the coroutines, and a call into an idle Redis takes at most 0.4 ms more.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from statistics import median

from benchmarks.redis_queue import pinned
from workqueue import open_queue
from workqueue.sync import open_queue as open_sync_queue

CALLERS = 32
KEYS = 12_800
SINGLE_CALLS = 1_000
ROUNDS = 7
LEAST_SHARE = 0.25
MOST_EXTRA_MS = 0.4


def threads_rate(queue: Callable[[str], object], turn: int) -> float:
    """Enqueues per second of `CALLERS` threads."""

    def caller(numbers: Iterator[int]) -> None:
        for number in numbers:
            queue(f"t{turn}-{number:08}")

    threads = [threading.Thread(target=caller, args=(iter(range(n, KEYS, CALLERS)),)) for n in range(CALLERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return KEYS / (time.perf_counter() - began)


async def coroutines_rate(queue: Callable[[str], Awaitable[object]], turn: int) -> float:
    """Enqueues per second of `CALLERS` coroutines."""

    async def caller(numbers: Iterator[int]) -> None:
        for number in numbers:
            await queue(f"c{turn}-{number:08}")

    began = time.perf_counter()
    await asyncio.gather(*(caller(iter(range(n, KEYS, CALLERS))) for n in range(CALLERS)))
    return KEYS / (time.perf_counter() - began)


def alone_ms(queue: Callable[[str], object], turn: int) -> float:
    """Milliseconds that one synchronous call takes while nothing else goes on."""
    took = []
    for number in range(SINGLE_CALLS):
        began = time.perf_counter()
        queue(f"T{turn}-{number:08}")
        took.append(time.perf_counter() - began)
    return median(took) * 1000


async def awaited_ms(queue: Callable[[str], Awaitable[object]], turn: int) -> float:
    """Milliseconds that one awaited call takes while nothing else goes on."""
    took = []
    for number in range(SINGLE_CALLS):
        began = time.perf_counter()
        await queue(f"C{turn}-{number:08}")
        took.append(time.perf_counter() - began)
    return median(took) * 1000


async def _awaited(url: str, turn: int) -> tuple[float, float]:
    async with open_queue(url) as queue:
        await queue.queue("first")
        return await coroutines_rate(queue.queue, turn), await awaited_ms(queue.queue, turn)


def main() -> int:
    """Measure both in turns and print the comparison; returns 1 if a bound is not kept."""
    synchronous, awaited = [], []
    with pinned(sorted(os.sched_getaffinity(0))) as server:
        for turn in range(ROUNDS):
            with open_sync_queue(server.url(f"sync{turn}")) as queue:
                queue.queue("first")
                synchronous.append((threads_rate(queue.queue, turn), alone_ms(queue.queue, turn)))
            awaited.append(asyncio.run(_awaited(server.url(f"async{turn}"), turn)))
    threads, coroutines = (median(rate for rate, _ in rows) for rows in (synchronous, awaited))
    alone, one = (median(took for _, took in rows) for rows in (synchronous, awaited))
    share, extra = threads / coroutines, alone - one
    print(f"{CALLERS} threads {threads:,.0f}/s, coroutines {coroutines:,.0f}/s: {share:.2f} (asked: {LEAST_SHARE})")
    print(f"one call {alone:.3f} ms, awaited {one:.3f} ms: {extra:.3f} ms more (asked: at most {MOST_EXTRA_MS})")
    return 0 if share >= LEAST_SHARE and extra <= MOST_EXTRA_MS else 1


if __name__ == "__main__":
    sys.exit(main())
