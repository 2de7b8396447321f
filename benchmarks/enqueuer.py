"""What the background enqueuer costs: puts with nine of ten duplicates, and distinct keys into Redis, end to end.

`python -m benchmarks.enqueuer [--rounds N]`. Puts are bound by one CPU, so their rate is keys per second of CPU time.
Into Redis it is time on the clock, with the server on one core and the producer on the other, beside `queue_many` with
as many keys a call and as many calls under way, in turns. The producer's CPU is given beside it: it is what stays the
same on a machine that others use too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from statistics import median

import uvloop

from benchmarks.redis_queue import pinned
from workqueue import Options, open_queue
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.enqueuer import BackgroundEnqueuer

PUTS, KEYS = 200_000, 100_000
SIZES = ((100, 4), (100, 8), (1000, 4))
_PLAIN = Options()

Measured = tuple[float, float]
"""Keys a second, and the producer's CPU in microseconds a key."""


class Nowhere:
    """A sink that costs nothing."""

    async def queue(self, key: str, options: Options = _PLAIN) -> None:
        pass

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        pass


async def puts(sink: object, keys: Sequence[str]) -> float:
    """Puts a second of CPU time."""
    async with BackgroundEnqueuer(sink) as enqueuer:  # type: ignore[arg-type]
        began = time.process_time()
        for key in keys:
            await enqueuer.put(key)
        return len(keys) / (time.process_time() - began)


async def in_bulk(url: str, batch: int, in_flight: int) -> Measured:
    """Distinct keys by `queue_many`."""
    keys = [f"customer/{number}" for number in range(KEYS)]
    async with open_queue(url) as queue:
        starts = iter(range(0, KEYS, batch))

        async def send() -> None:
            for start in starts:
                await queue.queue_many([(key, _PLAIN) for key in keys[start : start + batch]])

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*[send() for _ in range(in_flight)])
        return KEYS / (time.perf_counter() - began), (time.process_time() - cpu) / KEYS * 1e6


async def in_background(url: str, batch: int, in_flight: int) -> Measured:
    """The same by `put`, until the enqueuer is closed."""
    keys = [f"customer/{number}" for number in range(KEYS)]
    async with open_queue(url) as queue:
        began, cpu = time.perf_counter(), time.process_time()
        async with BackgroundEnqueuer(queue, batch=batch, in_flight=in_flight, buffer=10 * batch) as enqueuer:
            for key in keys:
                await enqueuer.put(key)
        return KEYS / (time.perf_counter() - began), (time.process_time() - cpu) / KEYS * 1e6


def show_puts(rounds: int) -> None:
    adjacent = [f"customer/{number // 10}" for number in range(PUTS)]
    spread = [f"customer/{number % (PUTS // 10)}" for number in range(PUTS)]
    for name, keys in (("duplicates follow each other", adjacent), ("duplicates come long after", spread)):
        rates = [asyncio.run(puts(Nowhere(), keys)) for _ in range(rounds)]
        print(f"put, nine of ten duplicates, {name}: {median(rates):,.0f}/s of CPU (asked: 200,000)")
    rates = [asyncio.run(_into_memory(adjacent)) for _ in range(rounds)]
    print(f"put, nine of ten duplicates, into memory:// and stored: {median(rates):,.0f}/s of CPU")


async def _into_memory(keys: Sequence[str]) -> float:
    async with MemoryQueue() as queue:
        return await puts(queue, keys)


def show_redis(rounds: int) -> None:
    turn = 0
    with pinned(sorted(os.sched_getaffinity(0))[:2]) as server:
        for batch, in_flight in SIZES:
            found: dict[str, list[Measured]] = {"queue_many": [], "put": []}
            for _ in range(rounds):
                for name, way in (("queue_many", in_bulk), ("put", in_background)):
                    turn += 1
                    found[name].append(uvloop.run(way(server.url(f"turn{turn}"), batch, in_flight)))
                    server.ask("FLUSHALL")
            ratio = median(put[0] / bulk[0] for put, bulk in zip(found["put"], found["queue_many"], strict=True))
            for name, measured in found.items():
                rate, cpu = (median(column) for column in zip(*measured, strict=True))
                print(f"Redis, {batch} keys a call, {in_flight} calls: {name} {rate:,.0f}/s, {cpu:.1f} µs of CPU a key")
            print(f"Redis, {batch} keys a call, {in_flight} calls: put beside queue_many {ratio:.2f} (asked: 0.90)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    show_puts(rounds)
    show_redis(rounds)


if __name__ == "__main__":
    main()
