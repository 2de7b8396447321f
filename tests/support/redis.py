"""For the Redis tests: queues of a test's own on a server, and the steps that most tests take."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.fakes.redis_server import RedisServer, shared_server
from workqueue import open_queue
from workqueue.backends.redis.backend import RedisQueue
from workqueue.clock import Clock
from workqueue.interface import OwnedInProgressKey
from workqueue.optional import Leased, LeaseRequest

__all__ = ["commands", "eligible", "fresh_name", "lease", "lease_one", "opened", "scripts_run", "until"]


def fresh_name() -> str:
    return f"t{secrets.token_hex(6)}"


@asynccontextmanager
async def opened(
    url: str = "", clock: Clock | None = None, owner: str = "", **settings: object
) -> AsyncIterator[RedisQueue]:
    """The queue at `url`, by default one of its own on the shared server."""
    queue = open_queue(url or shared_server().url(fresh_name(), **settings), clock=clock)
    assert isinstance(queue, RedisQueue)
    async with queue:
        yield queue


async def lease(queue: RedisQueue, limit: int = 1000, concurrency: int = 1000, max_retry: int = 0) -> Leased:
    return await queue.lease(LeaseRequest(limit, concurrency, max_retry))


async def lease_one(queue: RedisQueue) -> OwnedInProgressKey:
    (owned,) = (await lease(queue, limit=1)).started
    return owned


async def eligible(queue: RedisQueue) -> list[str]:
    return [queued.key for queued in (await queue.enumerate(1000)).queued]


def commands(server: RedisServer) -> int:
    """How many commands the server has carried out, those inside scripts not counted, but this one."""
    info: dict[str, Any] = server.ask("INFO", "stats")
    return int(info["total_commands_processed"])


def scripts_run(server: RedisServer) -> int:
    """How many scripts the server has run."""
    info: dict[str, Any] = server.ask("INFO", "commandstats")
    return int(info.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until `condition()` is true."""
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  what it asks is another process
            await asyncio.sleep(0.01)
