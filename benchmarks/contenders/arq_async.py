"""arq: a sorted set of jobs, looked at every 10 ms instead of every 500; 100 at a time, no results kept."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks.contenders.journal import REDIS_URL, run_async

ASYNC = True
SETTINGS = RedisSettings.from_dsn(REDIS_URL)


async def noop(ctx: Any, number: int) -> None:
    await run_async(number)


@asynccontextmanager
async def opened() -> AsyncIterator[Any]:
    pool = await create_pool(SETTINGS)
    yield pool
    await pool.aclose()


async def one(pool: Any, number: int) -> None:
    await pool.enqueue_job("noop", number)


async def duplicate(pool: Any, number: int) -> None:
    await pool.enqueue_job("noop", number, _job_id=f"key-{number:020}")


def work() -> None:
    import uvloop  # as ours, where it is installed

    uvloop.install()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # At its default of 0.5 s it sleeps most of the time: it starts at most `queue_read_limit` between two looks.
    settings = {"max_jobs": 100, "poll_delay": 0.01, "keep_result": 0, "log_results": False}
    Worker([noop], redis_settings=SETTINGS, **settings).run()
