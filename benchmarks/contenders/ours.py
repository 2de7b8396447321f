"""This library: every promise on, 100 at a time. Every enqueue deduplicates."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from benchmarks.contenders.journal import AGAIN, ENDED, PAUSE_SECONDS, REDIS_URL, write
from dispatcher import Attempt, Dispatcher, DispatcherSettings
from dispatcher.loop import run_until_signalled
from workqueue import Options, open_queue
from workqueue.fallbacks import FullQueue

ASYNC = True
URL = REDIS_URL + os.environ.get("BENCHMARK_SETTINGS", "")
LIMIT = int(os.environ.get("BENCHMARK_LIMIT", "100"))
_PLAIN = Options()


async def noop(key: str, attempt: Attempt) -> None:
    number = int(key[4:])
    write(number if attempt.attempts == 1 else number | AGAIN)
    if PAUSE_SECONDS:
        await asyncio.sleep(PAUSE_SECONDS)
        write(number | ENDED)


@asynccontextmanager
async def opened() -> AsyncIterator[FullQueue]:
    async with open_queue(URL) as queue:
        yield queue


async def one(queue: FullQueue, number: int) -> None:
    await queue.queue(f"key-{number:020}")


duplicate = one


async def bulk(queue: FullQueue, numbers: Sequence[int]) -> None:
    await queue.queue_many([(f"key-{number:020}", _PLAIN) for number in numbers])


def work() -> None:
    import uvloop

    async def run() -> None:
        async with open_queue(URL) as queue:
            await run_until_signalled(Dispatcher(queue, noop, DispatcherSettings(concurrency=LIMIT)))

    gc.freeze()  # as the dispatcher program does
    uvloop.run(run())
