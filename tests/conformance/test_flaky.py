"""FlakyQueue: the queue that other tests fail on purpose must fail as a real store does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from workqueue.backends.memory.backend import MemoryQueue
from workqueue.conformance import URLTarget, run_all
from workqueue.errors import KeyNotFoundError, StoreUnavailableError
from workqueue.interface import KeyStatus, WorkQueue
from workqueue.optional import LeaseRequest
from workqueue.options import Options
from workqueue.testing import FakeClock, FlakyQueue

OPTIONS = Options()
ONE = LeaseRequest(limit=1, concurrency=1)


def run(test: Callable[[FlakyQueue, FakeClock], Awaitable[None]]) -> None:
    async def within() -> None:
        clock = FakeClock()
        async with FlakyQueue(MemoryQueue(clock=clock)) as queue:
            await test(queue, clock)

    asyncio.run(within())


def test_a_call_that_fails_before_the_store_did_it_changes_nothing() -> None:
    async def test(queue: FlakyQueue, clock: FakeClock) -> None:
        queue.fail("queue")
        with pytest.raises(StoreUnavailableError):
            await queue.queue("a")
        with pytest.raises(KeyNotFoundError):
            await queue.get("a")
        await queue.queue("a")
        assert (await queue.get("a")).status == KeyStatus.QUEUED

    run(test)


def test_a_call_that_fails_after_the_store_did_it_is_done() -> None:
    async def test(queue: FlakyQueue, clock: FakeClock) -> None:
        queue.fail("queue", after=True)
        with pytest.raises(StoreUnavailableError):
            await queue.queue("a")
        assert (await queue.get("a")).status == KeyStatus.QUEUED

    run(test)


def test_a_settle_can_fail_for_one_key_only() -> None:
    async def test(queue: FlakyQueue, clock: FakeClock) -> None:
        await queue.queue_many([("a", OPTIONS), ("b", OPTIONS)])
        queue.fail("complete", ValueError("b"), key="b")
        a, b = (await queue.lease(LeaseRequest(2, 2))).started
        assert await a.complete()
        with pytest.raises(ValueError, match="b"):
            await b.complete()
        assert await b.complete()

    run(test)


def test_leases_in_a_lost_answer_lapse() -> None:
    async def test(queue: FlakyQueue, clock: FakeClock) -> None:
        await queue.queue("a")
        queue.fail("lease", after=True)
        with pytest.raises(StoreUnavailableError):
            await queue.lease(ONE)
        assert (await queue.get("a")).status == KeyStatus.IN_PROGRESS
        clock.advance(timedelta(seconds=16))
        assert [orphan.key for orphan in (await queue.lease(ONE)).recovered] == ["a"]

    run(test)


def test_handles_from_a_listing_fail_too() -> None:
    async def test(queue: FlakyQueue, clock: FakeClock) -> None:
        await queue.queue("a")
        queue.fail("start")
        (queued,) = (await queue.enumerate(1)).queued
        with pytest.raises(StoreUnavailableError):
            await queued.start()
        owned = await queued.start()
        queue.fail("dead_letter", times=2)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await owned.dead_letter("boom")
        assert await owned.dead_letter("boom")
        queue.fail("drop")
        async for letter in (await queue.enumerate(0)).dead_letters:
            with pytest.raises(StoreUnavailableError):
                await letter.drop()

    run(test)


def test_calls_are_recorded_in_order() -> None:
    async def test(queue: FlakyQueue, clock: FakeClock) -> None:
        await queue.queue("a")
        (owned,) = (await queue.lease(ONE)).started
        await owned.release()
        assert queue.calls == [("queue", "a"), ("lease", None), ("release", "a")]

    run(test)


def test_what_the_queue_beneath_knows_shows_through() -> None:
    async def test(queue: FlakyQueue, clock: FakeClock) -> None:
        assert (queue.name, queue.clock, queue.exact) == ("default", clock, True)
        await queue.queue("a")
        assert queue.metrics.added == 1

    run(test)


class Unfailing(URLTarget):
    """Memory queues behind a FlakyQueue that nobody told to fail."""

    def open(self, name: str, *, clock: FakeClock | None, owner: str) -> WorkQueue:
        return FlakyQueue(super().open(name, clock=clock, owner=owner))


def test_a_flaky_queue_that_is_not_told_to_fail_is_as_good_as_the_one_beneath() -> None:
    results = asyncio.run(run_all(Unfailing("memory://")))

    assert [result for result in results if result.status == "failed"] == []
