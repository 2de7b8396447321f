"""Callbacks that run too long, ignore their cancellation, block the event loop, or lose their lease."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dispatcher import Attempt, Callback, Dispatcher, DispatcherSettings
from tests.support.dispatching import (
    Recorder,
    clock_of,
    memory,
    opened,
    pass_time,
    running,
    settle_down,
    states,
    until,
)
from workqueue import Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.lease import LeaseTimes
from workqueue.optional import Leased, LeaseRequest
from workqueue.routing import KeyRouter, Router, Source, fields, has_fields, queue_callback
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
SETTINGS = DispatcherSettings(concurrency=1, max_run_time=MINUTE)


async def forever(key: str, attempt: Attempt) -> None:
    await asyncio.Event().wait()


class Stubborn:
    """A callback that takes its cancellation for a suggestion, until it is let go."""

    def __init__(self) -> None:
        self.cancellations = 0
        self.over = asyncio.Event()

    async def __call__(self, key: str, attempt: Attempt) -> None:
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                self.cancellations += 1


async def test_a_callback_that_runs_too_long_is_cancelled_and_has_failed() -> None:
    queue, errors = memory(), Recorder()
    await queue.queue("a")

    async with running(Dispatcher(queue, forever, SETTINGS, errors=errors)):
        await pass_time(queue, MINUTE)

    assert errors.told == [("a", "requeued")]
    assert errors.events[0].failure.error.startswith("TimeoutError")
    assert (await queue.get("a")).attempts == 1


async def test_a_callback_that_answers_only_because_it_was_cancelled_has_failed() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        try:
            await forever(key, attempt)
        except asyncio.CancelledError:
            return

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, SETTINGS, errors=errors)):
        await pass_time(queue, MINUTE)

    assert errors.told == [("a", "requeued")]


async def test_a_callback_may_ask_for_more_time() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        await queue.clock.sleep(50)
        attempt.extend(MINUTE)
        await queue.clock.sleep(50)

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, SETTINGS, errors=errors)):
        await pass_time(queue, 2 * MINUTE)

    assert errors.told == []
    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_asking_for_less_time_than_is_left_takes_nothing_away() -> None:
    queue, left = memory(), []

    async def reconcile(key: str, attempt: Attempt) -> None:
        attempt.extend(SECOND)
        left.append(attempt.remaining())

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, SETTINGS)):
        pass

    assert left == [MINUTE]


async def test_a_callback_that_ignores_its_cancellation_keeps_its_slot_but_not_its_lease() -> None:
    queue, stubborn = memory(), Stubborn()
    await queue.queue("a")
    await queue.queue("b")

    async with running(Dispatcher(queue, stubborn, SETTINGS)) as dispatcher:
        await pass_time(queue, MINUTE + 30 * SECOND)
        runaway = dispatcher.metrics.runaway_callbacks
        await pass_time(queue, 15 * SECOND)
        recovered = (await opened(queue.peer()).lease(LeaseRequest(1, 1))).started[0].key
        stubborn.over.set()
        await settle_down()
        assert (runaway, dispatcher.metrics.runaway_callbacks, stubborn.cancellations) == (1, 0, 1)

    assert recovered == "b"
    assert await states(queue, "a") == {"a": "QUEUED"}


async def test_the_answer_of_a_runaway_callback_is_ignored() -> None:
    queue, stubborn = memory(), Stubborn()
    await queue.queue("a")

    async with running(Dispatcher(queue, stubborn, SETTINGS)) as dispatcher:
        await pass_time(queue, MINUTE + 30 * SECOND)
        stubborn.over.set()
        await settle_down()
        assert dispatcher.metrics.outcomes["unsettled"] == 1

    assert await states(queue, "a") == {"a": "IN_PROGRESS"}


async def test_a_callback_whose_lease_is_lost_is_cancelled_and_nothing_is_settled_or_told() -> None:
    queue, errors, ended = memory(), Recorder(), []

    async def reconcile(key: str, attempt: Attempt) -> None:
        try:
            await forever(key, attempt)
        finally:
            ended.append(attempt.lost.is_set())

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, errors=errors)) as dispatcher:
        clock_of(queue).freeze(MINUTE)
        await settle_down()
        assert dispatcher.metrics.outcomes["lost"] == 1
        assert ended == [True]

    assert errors.told == []


class FrozenQueue(MemoryQueue):
    """A store whose first answer to a start arrives after the machine was suspended for a minute."""

    frozen = False

    async def lease(self, request: LeaseRequest) -> Leased:
        leased = await super().lease(request)
        if not self.frozen:
            self.frozen = True
            clock_of(self).freeze(MINUTE)
        return leased


async def test_a_callback_is_not_called_on_a_lease_that_lapsed_before_it_began() -> None:
    queue, called = opened(FrozenQueue(clock=FakeClock())), list[int]()

    async def reconcile(key: str, attempt: Attempt) -> None:
        called.append(attempt.attempts)

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile)) as dispatcher:
        await settle_down()
        assert (called, dispatcher.metrics.outcomes["lost"]) == ([2], 1)


async def test_a_plain_function_runs_in_a_thread_that_does_not_keep_the_process() -> None:
    queue, threads = memory(), []

    def reconcile(key: str, attempt: Attempt) -> None:
        threads.append(threading.current_thread())

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile)) as dispatcher:
        await until(lambda: dispatcher.metrics.outcomes["completed"] == 1)

    assert threads[0] is not threading.main_thread()
    assert threads[0].daemon


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), StopIteration(7)], ids=repr)
async def test_whatever_a_plain_function_raises_fails_its_key_and_nothing_else(error: BaseException) -> None:
    queue, errors = memory(), Recorder()

    def reconcile(key: str, attempt: Attempt) -> None:
        if key == "a":
            raise error

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, errors=errors)) as dispatcher:
        await until(lambda: bool(errors.told))
        await queue.queue("b")
        await until(lambda: dispatcher.metrics.outcomes["completed"] == 1)

    assert errors.told == [("a", "requeued")]


async def test_a_lambda_around_a_coroutine_function_is_awaited() -> None:
    queue, ended = memory(), []

    async def reconcile(key: str) -> None:
        await asyncio.sleep(0)
        ended.append(key)

    await queue.queue("a")
    async with running(Dispatcher(queue, lambda key, attempt: reconcile(key))) as dispatcher:
        await until(lambda: dispatcher.metrics.outcomes["completed"] == 1)

    assert ended == ["a"]


def routed_by_type(function: Callable[..., None]) -> KeyRouter:
    router = KeyRouter()
    router.route("a")(function)
    return router


def routed_by_message(function: Callable[..., None]) -> Callback:
    router = Router(Source("all", has_fields("type"), fields("type", "type")))
    router.proc("a")(function)
    return queue_callback(router)


@pytest.mark.parametrize(
    "routed", [lambda function: function, routed_by_type, routed_by_message], ids=["plain", "type", "message"]
)
async def test_a_thread_that_runs_too_long_keeps_its_key_until_it_ends_and_has_failed(
    routed: Callable[[Callable[..., None]], Callback],
) -> None:
    queue, errors, over = memory(), Recorder(), threading.Event()

    def reconcile(payload: Any, attempt: Any) -> None:
        over.wait()

    await queue.queue("a", Options(payload=b'{"type": "a"}'))
    async with running(Dispatcher(queue, routed(reconcile), SETTINGS, errors=errors)):
        await pass_time(queue, MINUTE + 10 * SECOND)
        before = (await states(queue, "a"), errors.told[:])
        over.set()
        await until(lambda: bool(errors.told))

    assert before == ({"a": "IN_PROGRESS"}, [])
    assert errors.events[0].failure.error.startswith("TimeoutError")


async def test_a_thread_sees_that_its_time_is_up_and_then_that_its_answer_will_be_ignored() -> None:
    queue, asked = memory(), threading.Event()
    told: list[object] = []

    def reconcile(key: str, attempt: Attempt) -> None:
        asked.wait()
        told.append((attempt.remaining(), attempt.lost.is_set()))
        asked.clear()
        told.append(attempt.lost.wait(30))

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, SETTINGS)):
        await pass_time(queue, MINUTE)
        asked.set()
        await until(lambda: not asked.is_set())
        await pass_time(queue, 30 * SECOND)
        await until(lambda: len(told) == 2)

    assert told == [(timedelta(0), False), True]


async def test_a_callback_that_blocks_the_event_loop_keeps_its_lease_and_the_others_go_on() -> None:
    lease = LeaseTimes(timedelta(milliseconds=400), timedelta(milliseconds=100))
    queue, errors = opened(MemoryQueue(lease=lease)), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        if key == "blocker":
            time.sleep(1)  # noqa: ASYNC251 - that is the point

    await queue.queue("blocker")
    await queue.queue("b")
    async with running(Dispatcher(queue, reconcile, errors=errors)) as dispatcher:
        await until(lambda: dispatcher.metrics.outcomes["completed"] == 2)
        assert dispatcher.metrics.outcomes["lost"] == 0


async def test_a_callback_that_blocks_the_event_loop_for_ever_does_not_keep_its_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue, orphaned = memory(), []

    async def reconcile(key: str, attempt: Attempt) -> None:
        for duration in (MINUTE + 29 * SECOND, MINUTE):  # nobody else runs while these pass
            clock_of(queue).advance(duration)
            orphaned.extend([seen.orphaned for seen in (await queue.enumerate()).in_progress])
        await forever(key, attempt)

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, SETTINGS)):
        await until(lambda: len(orphaned) == 2)

    assert orphaned == [False, True]
    assert "in reconcile" in caplog.text
    assert "key 'a' is left to its lease" in caplog.text
    assert "the event loop moves again" in caplog.text
