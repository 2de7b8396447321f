"""What 10,000 schedules cost while none is due, and how late they fire: spread over time, and all at one tick.

`python -m benchmarks.schedules [--url URL] [--schedules N] [--seconds S]`. Lateness is from the tick to the moment when
the user's key was stored. Idle CPU is that of this process while its dispatcher waits for ticks that are days away.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import uvloop

from dispatcher import Dispatcher
from dispatcher.schedules import FIRING
from workqueue import Options, open_queue
from workqueue.clock import from_us, to_us
from workqueue.fallbacks import FullQueue
from workqueue.sources.schedules import Firing, Schedule, Shelf, schedules_url

_AT_ONCE = 256


class Target:
    """Where keys go: notes how late each came, in seconds, once it is stored."""

    def __init__(self, queue: FullQueue) -> None:
        self.late: list[float] = []
        self._queue = queue
        self._wanted = 1
        self._reached = asyncio.Event()

    async def all_of(self, wanted: int) -> None:
        """Return when this many keys have come."""
        self._wanted = wanted
        while len(self.late) < wanted:
            self._reached.clear()
            await self._reached.wait()

    async def queue(self, key: str, options: Options = Options()) -> None:
        await self._queue.queue(key, options)
        self._note(options)

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        sent = list(items)
        await self._queue.queue_many(sent)
        for _, options in sent:
            self._note(options)

    def _note(self, options: Options) -> None:
        tick_us = to_us(datetime.fromisoformat(options.meta["scheduled-time"]))
        self.late.append((time.time_ns() // 1000 - tick_us) / 1e6)
        if len(self.late) >= self._wanted:
            self._reached.set()


async def keep(shelf: Shelf, schedules: Sequence[Schedule]) -> None:
    """Declare them, some at a time."""
    left = iter(schedules)

    async def declare() -> None:
        for schedule in left:
            await shelf.declare([schedule])

    await asyncio.gather(*[declare() for _ in range(_AT_ONCE)])


async def idle(url: str, count: int, seconds: float) -> None:
    """CPU while nothing is due."""
    async with AsyncExitStack() as stack:
        queue, schedules = [await stack.enter_async_context(open_queue(each)) for each in (url, schedules_url(url))]
        soon = datetime.now(UTC) + timedelta(days=3)
        line = f"{soon.minute} {soon.hour} {soon.day} {soon.month} *"
        began = time.perf_counter()
        await keep(Shelf(schedules), [Schedule(f"idle-{n}", line, f"key-{n}") for n in range(count)])
        print(f"declaring: {count / (time.perf_counter() - began):,.0f} schedules/s")
        async with Dispatcher(schedules, Firing(queue, schedules), FIRING):
            await asyncio.sleep(2)
            cpu = time.process_time()
            await asyncio.sleep(seconds)
            share = (time.process_time() - cpu) / seconds
        print(f"idle, {count:,} schedules: {share:.2%} of one CPU (asked: 1 %)")


async def spread(url: str, count: int, seconds: float) -> None:
    """Schedules whose ticks are spread evenly: each fires once within `seconds`."""
    first = seconds + 20  # by then all are declared, and no second tick comes before the last first one
    late = await _fire(url, [_every(f"spread-{n}", first + seconds * n / count) for n in range(count)], 4 * first)
    _show(f"spread over {seconds:.0f} s", late, asked="p99 50 ms")


async def together(url: str, count: int) -> None:
    """All at one tick."""
    at = from_us((time.time_ns() // 1_000_000_000 + 60) // 60 * 60_000_000).replace(tzinfo=UTC)
    at += timedelta(minutes=1) if (at - datetime.now(UTC)).total_seconds() < 15 else timedelta(0)
    line = f"{at.minute} {at.hour} * * *"
    late = await _fire(url, [Schedule(f"together-{n}", line, f"key-{n}") for n in range(count)], 150)
    _show("all at one tick", late, asked="last 2 s")


def _every(name: str, seconds: float) -> Schedule:
    return Schedule(name, f"@every {seconds:.3f}s", f"key-{name}")


async def _fire(url: str, schedules: Sequence[Schedule], patience: float) -> list[float]:
    async with AsyncExitStack() as stack:
        queue, kept = [await stack.enter_async_context(open_queue(each)) for each in (url, schedules_url(url))]
        target = Target(queue)
        await keep(Shelf(kept), schedules)
        async with Dispatcher(kept, Firing(target, kept), FIRING), asyncio.timeout(patience):
            await target.all_of(1)
            cpu = time.process_time()
            await target.all_of(len(schedules))
            print(f"CPU a firing: {(time.process_time() - cpu) / len(schedules) * 1e6:.0f} µs")
    return sorted(target.late[: len(schedules)])


def _show(name: str, late: Sequence[float], asked: str) -> None:
    p50, p99 = late[len(late) // 2] * 1e3, late[len(late) * 99 // 100] * 1e3
    print(f"{name}, {len(late):,} firings: p50 {p50:.1f} ms, p99 {p99:.1f} ms, last {late[-1] * 1e3:.0f} ms ({asked})")


async def run(url: str, count: int, seconds: float) -> None:
    for part, name in ((idle(f"{url}idle", count, 10), "idle"), (spread(f"{url}spread", count, seconds), "spread")):
        print(f"-- {name}", flush=True)
        await part
    print("-- together", flush=True)
    await together(f"{url}together", count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="memory://?name=", help="of a queue, up to its name, such as redis://…?name=")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60, help="over how long ticks are spread")
    given = parser.parse_args()
    gc.freeze()  # as the programs do
    uvloop.run(run(given.url, given.schedules, given.seconds))


if __name__ == "__main__":
    main()
