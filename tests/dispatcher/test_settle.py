"""A settle that the store fails or refuses: how long the loop tries again, and what it says."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings, TargetUnavailableError, handle_async
from tests.support.dispatching import (
    Ledger,
    dead_letters,
    flaky,
    nothing,
    opened,
    pass_time,
    running,
    settle_down,
    state,
    states,
)
from workqueue import InvalidOptionsError, QueueKey, QueueKeys
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import StoreUnusableError
from workqueue.handles import Owned
from workqueue.optional import Completed, Leased, LeaseRequest
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)
LAST_ATTEMPT = DispatcherSettings(max_retry=1)


async def test_a_settle_waits_for_a_store_that_refuses_it_for_a_moment() -> None:
    queue, ledger = flaky(), Ledger()
    await queue.queue("a")
    queue.fail("complete", StoreUnusableError(), times=4)

    async with running(Dispatcher(queue, ledger, LAST_ATTEMPT)):
        await pass_time(queue, 60 * SECOND)

    assert ledger.called == {"a": 1}
    assert await states(queue, "a") == {"a": "UNKNOWN"}


class RefusesOnce(MemoryQueue):
    """A store that fails the first completion that no task waits for, by raising or by its answer."""

    def __init__(self, *, by_raising: bool) -> None:
        super().__init__(clock=FakeClock())
        self.refused = 0
        self._by_raising = by_raising

    def complete_soon(self, owned: Owned, ended: Completed) -> None:
        if self.refused:
            return super().complete_soon(owned, ended)
        self.refused += 1
        if self._by_raising:
            raise StoreUnusableError
        return ended(StoreUnusableError())


@pytest.mark.parametrize("by_raising", [False, True])
async def test_a_completion_that_no_task_waits_for_is_tried_again_and_counted_once(by_raising: bool) -> None:
    queue, ledger = opened(RefusesOnce(by_raising=by_raising)), Ledger()
    await queue.queue("a")

    async with running(Dispatcher(queue, ledger, LAST_ATTEMPT)) as dispatcher:
        await pass_time(queue, 10 * SECOND)

    assert (queue.refused, ledger.called) == (1, {"a": 1})
    assert await states(queue, "a") == {"a": "UNKNOWN"}
    assert dispatcher.metrics.outcomes["completed"] == 1


async def test_a_settle_waits_as_long_as_its_lease_is_kept() -> None:
    queue, ledger = flaky(), Ledger()
    await queue.queue("a")
    queue.fail("complete", StoreUnusableError(), times=1000)

    async with running(Dispatcher(queue, ledger, LAST_ATTEMPT)):
        await pass_time(queue, timedelta(minutes=10))
        queue.mend("complete")
        await pass_time(queue, 10 * SECOND)

    assert ledger.called == {"a": 1}
    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_keys_that_an_attempt_asks_for_wait_for_the_store_too() -> None:
    queue = flaky()
    queue.fail("queue_many", StoreUnusableError(), times=4)

    async def reconcile(key: str, attempt: Attempt) -> QueueKeys | None:
        return QueueKeys(QueueKey("b", delay=timedelta(hours=1))) if key == "a" else None

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, LAST_ATTEMPT)):
        await pass_time(queue, 10 * SECOND)

    assert await states(queue, "a", "b") == {"a": "UNKNOWN", "b": "QUEUED"}


async def test_keys_that_are_handed_back_wait_for_the_store() -> None:
    queue, keys = flaky(), [f"k{number}" for number in range(10)]

    async def unreachable(key: str, attempt: Attempt) -> None:
        queue.mend("release")
        for other in set(keys) - {key}:
            queue.fail("release", StoreUnusableError(), key=other, times=4)
        raise TargetUnavailableError("down", "refused")

    for key in keys:
        await queue.queue(key)

    settings = DispatcherSettings(max_retry=1, concurrency=5)
    async with running(Dispatcher(queue, unreachable, settings)) as dispatcher:
        await pass_time(queue, timedelta(minutes=5))
        health = dispatcher.health.why_dead()

    assert (await queue.counts()).dead_lettered == 0
    assert dispatcher.metrics.outcomes["unsettled"] == 0
    assert health == ""


async def test_keys_that_were_started_when_a_drain_began_wait_for_the_store() -> None:
    queue = flaky()
    queue.fail("release", StoreUnusableError(), times=4)
    dispatcher = Dispatcher(queue, nothing, LAST_ATTEMPT)
    lease = queue.lease

    async def lease_and_drain(request: LeaseRequest) -> Leased:
        leased = await lease(request)
        dispatcher.begin_drain()
        return leased

    queue.lease = lease_and_drain  # type: ignore[method-assign]
    await queue.queue("a")
    async with running(dispatcher):
        await pass_time(queue, 10 * SECOND)

    assert (await state(queue, "a")).attempts == 0
    assert await states(queue, "a") == {"a": "QUEUED"}


async def test_a_round_waits_for_the_store_too() -> None:
    queue, ledger = flaky(), Ledger()
    await queue.queue("a")
    queue.fail("complete", StoreUnusableError(), times=4)

    round_ = handle_async(queue, callback=ledger, max_retry=1)
    await pass_time(queue, 10 * SECOND)
    errors = list(await asyncio.gather(round_, return_exceptions=True))

    assert errors == [None]
    assert ledger.called == {"a": 1}
    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_a_round_ends_although_its_store_settles_nothing() -> None:
    queue = flaky()
    await queue.queue("a")
    queue.fail("complete", StoreUnusableError(), times=1000)

    round_ = handle_async(queue, callback=nothing)
    await pass_time(queue, timedelta(minutes=1))
    with pytest.raises(ExceptionGroup) as raised:
        await round_

    assert raised.group_contains(StoreUnusableError)


async def test_a_round_that_is_cancelled_waits_three_seconds_for_the_store() -> None:
    queue = flaky()
    await queue.queue("a")
    queue.fail("complete", StoreUnusableError(), times=1000)

    round_ = handle_async(queue, callback=nothing)
    await settle_down()
    round_.cancel()
    await pass_time(queue, 4 * SECOND)

    assert round_.cancelled()


async def test_a_bug_of_a_backend_does_not_hold_its_key_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    queue = flaky()
    await queue.queue("a")
    queue.fail("complete", TypeError("complete failed"), times=1000)

    async with running(Dispatcher(queue, nothing, LAST_ATTEMPT)):
        await pass_time(queue, 60 * SECOND)

    assert list(await dead_letters(queue)) == ["a"]
    assert "key 'a' could not be settled, and runs again once its lease has lapsed: TypeError: complete failed" in (
        caplog.text
    )


async def test_a_call_that_is_wrong_is_not_tried_again() -> None:
    queue = flaky()
    await queue.queue("a")
    queue.fail("complete", InvalidOptionsError())

    async with running(Dispatcher(queue, nothing)):
        await settle_down()

    assert queue.asked("complete") == 1
