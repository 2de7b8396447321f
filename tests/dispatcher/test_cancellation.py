"""Whoever cancels a round or a loop, and whenever: no key is lost, stuck or spent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import dispatcher
from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.support.dispatching import Ledger, Recorder, SlowQueue, clock_of, opened, pass_time, settle_down, state
from workqueue import Outcome, QueueKey, QueueKeys, RequeueAfter, StoreUnavailableError
from workqueue.handles import Owned
from workqueue.testing import FakeClock

# What becomes of each key once its callback has ended: completed, requeued, given up, and more keys asked for.
ENDED = {"a": "UNKNOWN", "b": "QUEUED", "c": "DEAD_LETTER", "d": "UNKNOWN"}


class Outcomes:
    """A callback with a different outcome for each key."""

    def __init__(self) -> None:
        self.ledger = Ledger(steps=3)

    async def __call__(self, key: str, attempt: Attempt) -> Outcome | None:
        await self.ledger(key, attempt)
        match key:
            case "b":
                return RequeueAfter(timedelta(minutes=1))
            case "c":
                raise ValueError("no")
            case "d":
                return QueueKeys(QueueKey("child"))
        return None


Run = Callable[[SlowQueue, Outcomes], Coroutine[Any, Any, None]]


async def one_round(queue: SlowQueue, outcomes: Outcomes) -> None:
    await dispatcher.handle(queue, callback=outcomes, concurrency=3, max_retry=1, errors=Recorder())


async def one_future(queue: SlowQueue, outcomes: Outcomes) -> None:
    await dispatcher.handle_async(queue, callback=outcomes, concurrency=3, max_retry=1)


async def the_loop(queue: SlowQueue, outcomes: Outcomes) -> None:
    async with asyncio.TaskGroup() as group:
        dispatching = Dispatcher(queue, outcomes, DispatcherSettings(concurrency=3, max_retry=1), errors=Recorder())
        loop = group.create_task(dispatching.run())
        while outcomes.ledger.ended.total() < len(ENDED):  # noqa: ASYNC110 - a turn at a time
            await asyncio.sleep(0)
        loop.cancel()


async def cancelled_at(step: int, run: Run) -> bool:
    """Cancel `run` at its `step`-th turn of the event loop and check the keys; returns whether it was still running."""
    queue, outcomes = opened(SlowQueue(clock=FakeClock())), Outcomes()
    for key in ENDED:
        await queue.queue(key)
    task = asyncio.ensure_future(run(queue, outcomes))
    for _ in range(step):
        await asyncio.sleep(0)
    reached = task.cancel()
    await asyncio.wait((task,))
    await settle_down()
    for key in ENDED:
        await check(queue, outcomes.ledger, key, f"step {step}")
    return reached


async def check(queue: SlowQueue, ledger: Ledger, key: str, where: str) -> None:
    found = await state(queue, key)
    assert found.status.name == (ENDED[key] if ledger.ended[key] else "QUEUED"), (where, key)
    assert found.attempts == (1 if found.status.name == "DEAD_LETTER" else 0), (where, key)
    assert ledger.called[key] <= 1, (where, key)
    if key == "d" and ledger.ended[key]:
        assert (await state(queue, "child")).status.name in ("QUEUED", "UNKNOWN"), where


def cancel_everywhere(run: Run) -> int:
    for step in itertools.count():
        if not asyncio.run(cancelled_at(step, run)):
            return step
    raise AssertionError


def test_a_round_can_be_cancelled_at_every_await() -> None:
    assert cancel_everywhere(one_round) > 8


def test_a_round_begun_with_handle_async_can_be_cancelled_at_every_await() -> None:
    assert cancel_everywhere(one_future) > 8


def test_the_loop_can_be_cancelled_at_every_await() -> None:
    assert cancel_everywhere(the_loop) > 12


async def torn_down_at(step: int) -> None:
    """End the event loop at some turn of a dispatcher that nobody waits for, and look from the next process."""
    queue, outcomes = opened(SlowQueue(clock=FakeClock())), Outcomes()
    for key in ENDED:
        await queue.queue(key)
    dispatching = Dispatcher(queue, outcomes, DispatcherSettings(concurrency=3, max_retry=2))
    swept = {asyncio.ensure_future(dispatching.run())}
    await settle_down(step)
    swept |= asyncio.all_tasks() - {asyncio.current_task()}
    for task in swept:  # what asyncio.run does when the main function returns
        task.cancel()
    await settle_down()
    await pass_time(queue, timedelta(minutes=1))
    await asyncio.wait(swept)
    successor = opened(queue.peer())
    await queue.__aexit__()
    clock_of(queue).advance(queue.lease_times.duration)
    await dispatcher.handle(successor, callback=Ledger(), batch_size=1)
    assert (await successor.counts()).in_progress == 0, step


def test_an_event_loop_that_is_torn_down_leaves_no_key_stuck() -> None:
    for step in range(1, 25):
        asyncio.run(torn_down_at(step))


class DeafQueue(SlowQueue):
    """A store that refuses to complete keys, and does not answer who asks for more."""

    async def complete(self, owned: Owned) -> bool:
        raise StoreUnavailableError

    async def queue_many(self, items: Any) -> None:
        await asyncio.Event().wait()


async def _settles_torn_down() -> None:
    queue = opened(DeafQueue(clock=FakeClock()))
    for key in ("a", "d"):
        await queue.queue(key)
    dispatching = asyncio.ensure_future(Dispatcher(queue, Outcomes()).run())
    await settle_down()
    swept = asyncio.all_tasks() - {asyncio.current_task()}
    for task in swept:
        task.cancel()
    await settle_down()
    await pass_time(queue, timedelta(minutes=1))
    await asyncio.wait((dispatching,))
    assert [observed.orphaned for observed in (await queue.enumerate()).in_progress] == [True, True]


def test_settles_that_are_torn_down_leave_their_keys_to_lapse_even_in_a_process_that_lives_on() -> None:
    asyncio.run(_settles_torn_down())
