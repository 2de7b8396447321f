"""What dispatching costs on the memory queue, beside bare tasks under a semaphore: cycles, backlog, latency, idling.

`python -m benchmarks.cycle [--loop uvloop]`. Everything here is bound by one CPU, so rates are keys per second of CPU
time; rounds are interleaved on one CPU and medians compared, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from statistics import median
from typing import Any

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from workqueue.backends.memory.backend import MemoryQueue

CONCURRENCY = 100
KEYS = 30_000
ROUNDS = 7
SETTINGS = DispatcherSettings(concurrency=CONCURRENCY)

Measured = Callable[[], Awaitable[float]]


async def noop() -> None:
    """What both sides run."""


async def bare_wrapped() -> float:
    """Tasks per second under a semaphore that each task gives back itself."""
    semaphore, loop = asyncio.Semaphore(CONCURRENCY), asyncio.get_running_loop()

    async def one() -> None:
        try:
            await noop()
        finally:
            semaphore.release()

    return await _bare(semaphore, lambda: loop.create_task(one()))


async def bare_called_back() -> float:
    """The same, given back by a callback of the task; which of the two is faster depends on the event loop."""
    semaphore, loop = asyncio.Semaphore(CONCURRENCY), asyncio.get_running_loop()
    return await _bare(semaphore, lambda: loop.create_task(noop()).add_done_callback(lambda task: semaphore.release()))


async def _bare(semaphore: asyncio.Semaphore, start: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(KEYS):
        await semaphore.acquire()
        start()
    for _ in range(CONCURRENCY):
        await semaphore.acquire()
    return KEYS / (time.process_time() - began)


async def full_cycle() -> float:
    """Keys per second: enqueue, lease, no-op callback, complete, with every promise on."""
    left, done = KEYS, asyncio.Event()

    async def reconcile(key: str, attempt: Attempt) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    async with MemoryQueue() as queue:
        began = time.process_time()
        for number in range(KEYS):
            await queue.queue(f"key-{number}")
        async with Dispatcher(queue, reconcile, SETTINGS):
            await done.wait()
    return KEYS / (time.process_time() - began)


def at_backlog(backlog: int) -> Measured:
    """Keys per second while so many are queued: each callback enqueues another key."""

    async def measure() -> float:
        numbers, done = iter(range(10**9)), asyncio.Event()
        left = KEYS

        async def reconcile(key: str, attempt: Attempt) -> None:
            nonlocal left
            left -= 1
            await queue.queue(f"again-{next(numbers)}-{key[-12:]}")
            if not left:
                done.set()

        async with MemoryQueue() as queue:
            while (await queue.counts()).queued < backlog:
                await queue.queue(f"key-{next(numbers)}")
            began = time.process_time()
            async with Dispatcher(queue, reconcile, SETTINGS):
                await done.wait()
                return KEYS / (time.process_time() - began)

    return measure


async def latencies() -> list[float]:
    """Seconds from an enqueue on an idle queue to the callback, sorted."""
    queue, seen = MemoryQueue(), []
    called = asyncio.Event()

    async def reconcile(key: str, attempt: Attempt) -> None:
        seen.append(time.perf_counter() - began)
        called.set()

    async with queue, Dispatcher(queue, reconcile, SETTINGS):
        for number in range(1000):
            await asyncio.sleep(0.002)
            called.clear()
            began = time.perf_counter()
            await queue.queue(f"key-{number}")
            await called.wait()
    return sorted(seen)


async def idle_share(seconds: float) -> float:
    """CPU seconds per second of a dispatcher with nothing to do."""
    queue = MemoryQueue()

    async def reconcile(key: str, attempt: Attempt) -> None:
        pass

    async with queue, Dispatcher(queue, reconcile, SETTINGS):
        await queue.queue("one")  # so that the lease renewer's thread runs too
        await asyncio.sleep(0.5)
        began = time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - began) / seconds


def runner(loop: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """How to run a coroutine on the event loop of that name."""
    if loop == "uvloop":
        import uvloop

        return uvloop.run
    return asyncio.run


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--backlog", type=int, default=1_000_000)
    arguments = parser.parse_args()
    run = runner(arguments.loop)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    wrapped, called_back, ours = run(interleaved(bare_wrapped, bare_called_back, full_cycle))
    bare = max(wrapped, called_back)
    show(f"bare tasks, semaphore of {CONCURRENCY}", f"{bare:,.0f}/s", arguments.loop)
    show("full cycle, every promise on", f"{ours:,.0f}/s", f"ratio {ours / bare:.2f} (at least 0.30)")
    small, large = run(interleaved(at_backlog(1000), at_backlog(arguments.backlog)))
    show("full cycle at 1,000 queued", f"{small:,.0f}/s")
    cost = f"{small / large:.2f} times the cost (at most 1.5)"
    show(f"full cycle at {arguments.backlog:,} queued", f"{large:,.0f}/s", cost)
    waited = run(latencies())
    show("enqueue to callback, idle, p50", f"{waited[500] * 1000:.3f} ms", "(below 0.3)")
    show("enqueue to callback, idle, p99", f"{waited[990] * 1000:.3f} ms")
    show("idle CPU", f"{run(idle_share(10)):.2%}", "(below 1 %)")


def show(what: str, value: str, remark: str = "") -> None:
    print(f"{what:<34} {value:>14}   {remark}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
