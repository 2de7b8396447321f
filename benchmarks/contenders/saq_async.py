"""SAQ: lists; 50 at a time, faster than 100 or 20 here; results kept for no time."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from saq import Queue, Worker

from benchmarks.contenders.journal import REDIS_URL, run_async

ASYNC = True
MAX_CONCURRENT_OPS = 100  # 20 by default, fewer than there are producers


async def noop(ctx: Any, *, number: int) -> None:
    await run_async(number)


@asynccontextmanager
async def opened() -> AsyncIterator[Any]:
    queue = Queue.from_url(REDIS_URL, max_concurrent_ops=MAX_CONCURRENT_OPS)
    await queue.connect()
    yield queue
    await queue.disconnect()


async def one(queue: Any, number: int) -> None:
    await queue.enqueue("noop", number=number, ttl=-1)


async def duplicate(queue: Any, number: int) -> None:
    await queue.enqueue("noop", number=number, ttl=-1, key=f"key-{number:020}")


def work() -> None:
    import uvloop

    async def run() -> None:
        queue = Queue.from_url(REDIS_URL, max_concurrent_ops=MAX_CONCURRENT_OPS)
        await queue.connect()
        await Worker(queue, functions=[noop], concurrency=50).start()

    uvloop.run(run())
