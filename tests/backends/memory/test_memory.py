"""What is special to the memory queue: it lives as long as its process, so nothing may pile up in it."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import timedelta

from tests.support.dispatching import opened
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import from_us
from workqueue.optional import LeaseRequest
from workqueue.options import Options
from workqueue.testing import FakeClock

KEPT_BYTES = 1_000_000
ONE = LeaseRequest(limit=1, concurrency=1)


def grown_by(step: Callable[[MemoryQueue, int], Awaitable[None]], times: int) -> int:
    """How many bytes a queue holds on to after so many steps."""

    async def live() -> int:
        queue = opened(MemoryQueue(clock=FakeClock()))
        for number in range(100):
            await step(queue, number)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(times):
            await step(queue, number)
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        return asyncio.run(live())
    finally:
        tracemalloc.stop()


def test_events_for_a_delayed_key_leave_nothing_behind() -> None:
    async def event(queue: MemoryQueue, number: int) -> None:
        not_before = from_us(queue.clock.wall_us()) + timedelta(days=1)
        await queue.queue("a", Options(not_before=not_before, not_before_floor=True, payload=b"%d" % number))

    assert grown_by(event, 10_000) < KEPT_BYTES


def test_events_for_a_waiting_key_leave_nothing_behind() -> None:
    async def event(queue: MemoryQueue, number: int) -> None:
        await queue.queue("a", Options(priority=number % 7, payload=b"%d" % number))

    assert grown_by(event, 10_000) < KEPT_BYTES


def test_events_of_ever_higher_priority_leave_nothing_behind() -> None:
    async def event(queue: MemoryQueue, number: int) -> None:
        await queue.queue("a", Options(priority=number))
        await queue.queue("first in line", Options(priority=1_000_000))

    assert grown_by(event, 10_000) < 3 * KEPT_BYTES


def test_keys_that_are_retried_again_and_again_leave_nothing_behind() -> None:
    async def retry(queue: MemoryQueue, number: int) -> None:
        if not number:
            await queue.queue("a")
        (owned,) = (await queue.lease(ONE)).started
        await owned.requeue(backoff=timedelta(seconds=1))
        queue.clock.advance(timedelta(seconds=1))  # type: ignore[attr-defined]

    assert grown_by(retry, 4_000) < KEPT_BYTES


def test_keys_that_were_completed_leave_nothing_behind() -> None:
    async def run(queue: MemoryQueue, number: int) -> None:
        await queue.queue(f"key {number}", Options(priority=number % 50))
        (owned,) = (await queue.lease(ONE)).started
        await owned.complete()

    assert grown_by(run, 10_000) < KEPT_BYTES
