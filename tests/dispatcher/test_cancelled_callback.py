"""A callback whose task is cancelled by something of its own: a deadline, a cancel scope that leaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

import dispatcher
from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.support.dispatching import (
    Recorder,
    SlowQueue,
    dead_letters,
    memory,
    opened,
    pass_time,
    running,
    settle_down,
    state,
)
from workqueue import RequeueAfter
from workqueue.handles import Owned
from workqueue.testing import FakeClock

MINUTE = timedelta(minutes=1)


def cancel_me(message: str | None = None) -> Callable[[], object]:
    task = asyncio.current_task()
    assert task is not None
    return lambda: task.cancel(message)


def uncancel_me() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()


class OwnDeadline:
    """A callback that has itself cancelled, as a deadline of its own does."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, key: str, attempt: Attempt) -> None:
        self.calls += 1
        asyncio.get_running_loop().call_soon(cancel_me("superseded"))
        await asyncio.Event().wait()


class ClosedForNow(SlowQueue):
    """A store that keeps who completes a key waiting."""

    def __init__(self) -> None:
        super().__init__(clock=FakeClock())
        self.asked, self.open = asyncio.Event(), asyncio.Event()

    async def complete(self, owned: Owned) -> bool:
        self.asked.set()
        await self.open.wait()
        return await super().complete(owned)


async def test_a_callback_that_has_itself_cancelled_has_failed_and_is_given_up_as_any_other() -> None:
    queue, callback, errors = memory(), OwnDeadline(), Recorder()
    await queue.queue("a")
    settings = DispatcherSettings(max_retry=3, backoff=lambda attempts: MINUTE)

    async with running(Dispatcher(queue, callback, settings, errors=errors)):
        await pass_time(queue, 10 * MINUTE)

    text = "CancelledError: the callback's task was cancelled, and not by the dispatcher: superseded"
    assert callback.calls == 3
    assert errors.told == [("a", "requeued"), ("a", "requeued"), ("a", "dead-lettered")]
    assert await dead_letters(queue) == {"a": text}


async def test_a_round_fails_such_a_callback_too() -> None:
    queue = memory()
    await queue.queue("a")

    await dispatcher.handle(queue, callback=OwnDeadline(), max_retry=1)

    assert list(await dead_letters(queue)) == ["a"]


async def test_what_a_callback_answers_counts_although_it_was_cancelled() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        cancel_me()()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RequeueAfter(MINUTE) from None

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile)

    assert (await state(queue, "a")).not_before is not None


async def test_a_cancellation_that_a_callback_takes_back_cuts_no_settle_short() -> None:
    queue = opened(SlowQueue(clock=FakeClock()))

    async def reconcile(key: str, attempt: Attempt) -> None:
        cancel_me()()
        uncancel_me()

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile)

    assert (await state(queue, "a")).status.name == "UNKNOWN"


@pytest.mark.parametrize("times", [1, 2])
async def test_a_callback_that_takes_our_cancellation_back_is_released_all_the_same(times: int) -> None:
    queue = opened(SlowQueue(clock=FakeClock()))

    async def reconcile(key: str, attempt: Attempt) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            for _ in range(times):
                uncancel_me()
                cancel_me()()  # to be delivered at the next await, which is not in here
            raise

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, DispatcherSettings(max_retry=1))):
        await settle_down()

    assert ((await state(queue, "a")).status.name, (await state(queue, "a")).attempts) == ("QUEUED", 0)


async def test_a_callback_may_tidy_up_within_a_timeout_when_it_is_cancelled() -> None:
    queue = opened(SlowQueue(clock=FakeClock()))

    async def reconcile(key: str, attempt: Attempt) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            uncancel_me()
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, DispatcherSettings(max_retry=1))):
        await settle_down()

    assert ((await state(queue, "a")).status.name, (await state(queue, "a")).attempts) == ("QUEUED", 0)


async def test_a_deadline_that_a_callback_forgot_cuts_no_settle_short() -> None:
    queue, forgotten = opened(ClosedForNow()), []

    async def reconcile(key: str, attempt: Attempt) -> None:
        forgotten.append(cancel_me())

    await queue.queue("a")
    round_ = dispatcher.handle_async(queue, callback=reconcile)
    await queue.asked.wait()
    forgotten[0]()
    await settle_down()
    queue.open.set()
    await round_

    assert (await state(queue, "a")).status.name == "UNKNOWN"
