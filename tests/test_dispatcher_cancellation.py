"""Whoever cancels a round or a loop, and whenever: no key is lost, stuck or spent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import dispatcher
from dispatcher import Dispatcher, DispatcherSettings
from tests.dispatching import Ledger, SlowQueue, settle_down, state
from workqueue.testing import FakeClock

KEYS = ("a", "b", "c")

Run = Callable[[SlowQueue, Ledger], Coroutine[Any, Any, None]]


async def one_round(queue: SlowQueue, ledger: Ledger) -> None:
    await dispatcher.handle(queue, callback=ledger, concurrency=2)


async def one_future(queue: SlowQueue, ledger: Ledger) -> None:
    await dispatcher.handle_async(queue, callback=ledger, concurrency=2)


async def the_loop(queue: SlowQueue, ledger: Ledger) -> None:
    async with asyncio.TaskGroup() as group:
        dispatching = Dispatcher(queue, ledger, DispatcherSettings(concurrency=2))
        loop = group.create_task(dispatching.run())
        while ledger.ended.total() < len(KEYS):  # noqa: ASYNC110 - a turn at a time
            await asyncio.sleep(0)
        loop.cancel()


async def cancelled_at(step: int, run: Run) -> bool:
    """Cancel `run` at its `step`-th turn of the event loop and check the keys; returns whether it was still running."""
    queue, ledger = SlowQueue(clock=FakeClock()), Ledger(steps=3)
    for key in KEYS:
        await queue.queue(key)
    task = asyncio.ensure_future(run(queue, ledger))
    for _ in range(step):
        await asyncio.sleep(0)
    reached = task.cancel()
    await asyncio.wait((task,))
    await settle_down()
    for key in KEYS:
        await check(queue, ledger, key, f"step {step}")
    return reached


async def check(queue: SlowQueue, ledger: Ledger, key: str, where: str) -> None:
    found = await state(queue, key)
    assert found.status.name == ("UNKNOWN" if ledger.ended[key] else "QUEUED"), (where, key)
    assert found.attempts == 0, (where, key)
    assert ledger.called[key] <= 1, (where, key)


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
