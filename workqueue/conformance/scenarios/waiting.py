"""`wait` returns as soon as a key may be startable, so that nobody has to poll."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from workqueue.conformance.case import MANY, Case, expect
from workqueue.conformance.scenario import Need, scenario
from workqueue.errors import QueueClosedError
from workqueue.fallbacks import FullQueue
from workqueue.throttle import Configuration

_LONG = 3600
_REAL_SECONDS = 10.0


@asynccontextmanager
async def _waiting(case: Case, queue: FullQueue, concurrency: int = MANY) -> AsyncIterator[asyncio.Task[None]]:
    """A task that has returned or sleeps, for up to an hour; it is cancelled if it does not return by itself.

    On the clock one sees that it sleeps. Were it only given a moment, then on a store slower than that it would still
    be looking when the scenario goes on, find the key, and pass without any wake-up.
    """
    asleep_before = case.clock.sleeping
    task = asyncio.ensure_future(queue.wait(timedelta(seconds=_LONG), concurrency))
    try:
        while not task.done() and case.clock.sleeping <= asleep_before:
            await asyncio.wait({task}, timeout=0.001)
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _woken(task: asyncio.Task[None]) -> None:
    await asyncio.wait({task}, timeout=_REAL_SECONDS)
    expect(task.done(), True, "woken without the clock moving")
    task.result()


@scenario(Need.WAIT)
async def it_returns_at_once_when_a_key_is_eligible(case: Case) -> None:
    await case.enqueue("a")
    await asyncio.wait_for(case.queue.wait(timedelta(seconds=_LONG), MANY), _REAL_SECONDS)


@scenario(Need.WAIT, Need.CLOCK)
async def an_enqueue_wakes_whoever_waits(case: Case) -> None:
    async with _waiting(case, case.queue) as task:
        await case.enqueue("a")
        await _woken(task)


@scenario(Need.WAIT, Need.WAKE, Need.CLOCK)
async def an_enqueue_by_another_process_wakes_whoever_waits(case: Case) -> None:
    peer = await case.peer()
    async with _waiting(case, case.queue) as task:
        await peer.queue("a")
        await _woken(task)


@scenario(Need.WAIT, Need.WAKE, Need.CLOCK)
async def a_requeue_wakes_whoever_waits(case: Case) -> None:
    owned = await case.started("a")
    async with _waiting(case, await case.peer()) as task:
        await owned.requeue()
        await _woken(task)


@scenario(Need.WAIT, Need.CLOCK)
async def a_settle_of_a_key_with_a_twin_wakes_whoever_waits(case: Case) -> None:
    owned = await case.started("a")
    await case.enqueue("a")
    async with _waiting(case, case.queue) as task:
        await owned.complete()
        await _woken(task)


@scenario(Need.WAIT, Need.WAKE, Need.CLOCK)
async def a_free_slot_wakes_whoever_waits_for_one(case: Case) -> None:
    await case.enqueue("b")
    owned = await case.started("a", priority=1)
    async with _waiting(case, await case.peer(), concurrency=1) as task:
        await owned.complete()
        await _woken(task)


@scenario(Need.WAIT, Need.WAKE, Need.CLOCK)
async def a_redrive_wakes_whoever_waits(case: Case) -> None:
    await case.failed("a")
    letter = await case.dead_letter("a")
    async with _waiting(case, await case.peer()) as task:
        await letter.requeue()
        await _woken(task)


@scenario(Need.WAIT, Need.CLOCK)
async def closing_wakes_whoever_waits(case: Case) -> None:
    for turns in (0, 1):  # it may be on its way to sleep, or asleep
        closing = await case.peer()
        task = asyncio.ensure_future(closing.wait(timedelta(seconds=_LONG), MANY))
        await asyncio.wait({task}, timeout=0.01 * turns)
        await case.close(closing)
        expect((await asyncio.wait({task}, timeout=_REAL_SECONDS))[0], {task}, "woken without the clock moving")
        expect(isinstance(task.exception(), QueueClosedError | None), True, f"ended well: {task!r}")


@scenario(Need.WAIT, Need.CLOCK)
async def it_returns_when_the_next_not_before_comes(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(20))
    async with _waiting(case, case.queue) as task:
        expect(await case.done_in_time(task, _LONG // 2), True, "returned")
    expect(await case.done_in_time(asyncio.ensure_future(case.queue.wait(timedelta(seconds=_LONG), 1)), 30), True)
    case.advance(20)
    expect(await case.eligible(), ["a"], "the eligible keys")


@scenario(Need.WAIT, Need.CLOCK)
async def it_returns_when_a_lease_lapses(case: Case) -> None:
    (await case.started("a")).abandon()
    async with _waiting(case, await case.peer(), concurrency=1) as task:
        expect(await case.done_in_time(task, _LONG // 2), True, "returned")


@scenario(Need.WAIT, Need.CONFIGURE, Need.CLOCK)
async def a_resume_wakes_whoever_waits(case: Case) -> None:
    await case.queue.configure(Configuration(paused=True))
    await case.enqueue("a")
    async with _waiting(case, await case.peer()) as task:
        await case.queue.configure(Configuration())
        expect(await case.done_in_time(task, 60), True, "returned")


@scenario(Need.WAIT, Need.CONFIGURE, Need.CLOCK)
async def a_resume_through_the_handle_that_waits_wakes_it(case: Case) -> None:
    await case.queue.configure(Configuration(paused=True))
    await case.enqueue("a")
    async with _waiting(case, case.queue) as task:
        await case.queue.configure(Configuration())
        await _woken(task)


@scenario(Need.WAIT, Need.CONFIGURE, Need.CLOCK)
async def it_returns_when_a_start_is_saved_up_again(case: Case) -> None:
    await case.queue.configure(Configuration(starts_per_second=0.1))
    for key in "ab":
        await case.enqueue(key)
    await case.lease()
    async with _waiting(case, case.queue) as task:
        expect(await case.done_in_time(task, 60), True, "returned")


@scenario(Need.WAIT, Need.CLOCK)
async def it_returns_when_its_timeout_is_over(case: Case) -> None:
    task = asyncio.ensure_future(case.queue.wait(timedelta(seconds=5), MANY))
    expect(await case.done_in_time(task, 60), True, "returned")
    task.result()


@scenario(Need.WAIT, Need.CLOCK)
async def waiting_on_an_idle_queue_is_no_busy_loop(case: Case) -> None:
    await case.enqueue("a", not_before=case.later(_LONG))
    returns = 0
    for _ in range(3):
        async with _waiting(case, case.queue) as task:
            returns += task.done()
    expect(returns <= 1, True, f"{returns} of 3 waits returned although nothing happened")


@scenario(Need.WAIT, Need.CLOCK)
async def waiting_while_every_slot_is_taken_is_no_busy_loop(case: Case) -> None:
    await case.enqueue("b")
    await case.started("a", priority=1)
    returns = 0
    for _ in range(3):
        async with _waiting(case, case.queue, concurrency=1) as task:
            returns += task.done()
    expect(returns <= 1, True, f"{returns} of 3 waits returned although nothing happened")
