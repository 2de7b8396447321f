"""taskiq on a stream: acknowledged when executed; 100 at a time in one process."""

# mypy: disable-error-code="import-not-found"
# What it imports is installed in an environment of its own.
from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskiq_redis import RedisStreamBroker

from benchmarks.contenders.journal import REDIS_URL, run_async

ASYNC = True
broker: Any = RedisStreamBroker(REDIS_URL, consumer_id="0")


noop = broker.task(run_async)


@asynccontextmanager
async def opened() -> AsyncIterator[Any]:
    await broker.startup()
    yield broker
    await broker.shutdown()


async def one(_: Any, number: int) -> None:
    await noop.kiq(number)


def work(module: str = __name__) -> None:
    limits = ["--workers", "1", "--max-async-tasks", "100", "--no-parse"]  # 100 is its default; no pydantic
    arguments = ["worker", f"{module}:broker", *limits, "--log-level", "ERROR"]
    os.execv(sys.executable, [sys.executable, "-m", "taskiq", *arguments])
