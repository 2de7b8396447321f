"""Lease steps that overlap: when and how many, for how many slots, and what becomes of them at the end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.support.dispatching import Ledger, SlowQueue, nothing, opened, pass_time, running, settle_down
from workqueue import Options, StoreUnavailableError
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.handles import Owned
from workqueue.optional import Completed, Leased, LeaseRequest
from workqueue.testing import FakeClock

SETTINGS = DispatcherSettings(concurrency=40)
TURNS = 5  # of the event loop, for each request


class LinedUp(MemoryQueue):
    """A store at a distance, which takes one request after the other, in the order in which it was asked."""

    lease_steps = 2

    def __init__(self) -> None:
        super().__init__(clock=FakeClock())
        self.asked: list[str] = []
        self.is_down = False
        self.is_silent = False
        self.most_steps = 0
        self._steps = 0
        self._line: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._serving: asyncio.Task[None] | None = None

    def lease(self, request: LeaseRequest) -> Coroutine[Any, Any, Leased]:
        answer: asyncio.Future[Leased] = asyncio.get_running_loop().create_future()
        self._steps += 1
        self.most_steps = max(self.most_steps, self._steps)
        self._ask(f"lease {request.limit}", partial(self._lease, request, answer))
        return _awaited(answer)

    async def _lease(self, request: LeaseRequest, answer: asyncio.Future[Leased]) -> None:
        self._steps -= 1
        if self.is_down:
            answer.set_exception(StoreUnavailableError("lease failed"))
        else:
            answer.set_result(await super().lease(request))

    def complete_soon(self, owned: Owned, ended: Completed) -> None:
        self._ask("complete", partial(self._complete_now, owned, ended))

    async def _complete_now(self, owned: Owned, ended: Completed) -> None:
        super().complete_soon(owned, ended)

    def _ask(self, what: str, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.asked.append(what)
        self._line.append(step)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        while self._line:
            await settle_down(TURNS)
            if not self.is_silent:
                await self._line.popleft()()


async def _awaited(answer: asyncio.Future[Leased]) -> Leased:
    return await answer


async def filled(count: int) -> LinedUp:
    queue = opened(LinedUp())
    await queue.queue_many([(f"key-{number:04}", Options()) for number in range(count)])
    return queue


async def turns_until(happened: Callable[[], bool]) -> None:
    for _ in range(1000):
        await settle_down(1)
        if happened():
            return
    raise AssertionError("it did not happen in 1,000 turns of the event loop")


async def test_while_there_is_plenty_two_lease_steps_are_under_way_each_for_half_of_the_slots() -> None:
    queue = await filled(200)

    async with running(Dispatcher(queue, nothing, SETTINGS)):
        await settle_down(3000)

    leases = [asked for asked in queue.asked if asked.startswith("lease")]
    assert (leases[:3], queue.most_steps) == (["lease 40", "lease 20", "lease 20"], 2)


async def test_each_key_is_called_once_and_never_more_at_once_than_there_are_slots() -> None:
    queue, ledger = await filled(200), Ledger(steps=7)
    inside, most = 0, 0

    async def callback(key: str, attempt: Attempt) -> None:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        await ledger(key, attempt)
        inside -= 1

    async with running(Dispatcher(queue, callback, SETTINGS)):
        await settle_down(5000)

    assert (len(ledger.ended), set(ledger.ended.values()), most) == (200, {1}, 40)


async def test_a_slot_is_asked_for_as_soon_as_its_key_is_being_completed() -> None:
    queue = await filled(2)

    async with running(Dispatcher(queue, nothing, DispatcherSettings(concurrency=1))):
        await settle_down(200)

    assert queue.asked[:4] == ["lease 1", "complete", "lease 1", "complete"]


async def test_a_slot_of_a_callback_that_ran_on_is_asked_for_before_the_store_has_answered() -> None:
    queue, ends = await filled(2), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        await ends.wait()

    async with running(Dispatcher(queue, callback, DispatcherSettings(concurrency=1))):
        queue.is_silent = True
        ends.set()
        await settle_down()
        asked = list(queue.asked)
        queue.is_silent = False
        await settle_down()

    assert asked == ["lease 1", "complete", "lease 1"]


async def test_slots_that_a_step_under_way_may_fill_are_not_asked_for_again() -> None:
    queue, called = await filled(200), 0

    async def callback(key: str, attempt: Attempt) -> None:
        nonlocal called
        called += 1
        if called > 40:  # by then the steps overlap
            await asyncio.Event().wait()

    async with running(Dispatcher(queue, callback, SETTINGS)):
        await settle_down(3000)

    assert [asked for asked in queue.asked if asked != "complete"] == ["lease 40", "lease 20", "lease 20"]


async def test_a_lone_key_costs_one_lease_step_and_the_look_for_another() -> None:
    queue = await filled(0)

    async with running(Dispatcher(queue, nothing, SETTINGS)):
        await queue.queue("a")
        await settle_down(200)

    assert queue.asked == ["lease 40", "lease 40", "complete", "lease 40"]


async def test_few_slots_are_asked_for_in_one_step() -> None:
    queue = await filled(100)

    async with running(Dispatcher(queue, nothing, DispatcherSettings(concurrency=8))):
        await settle_down(2000)

    assert queue.most_steps == 1


async def test_each_step_starts_at_most_a_batch() -> None:
    queue = await filled(100)

    async with running(Dispatcher(queue, nothing, DispatcherSettings(concurrency=40, batch_size=3))):
        await settle_down(3000)

    assert {asked for asked in queue.asked if asked != "complete"} == {"lease 3"}


async def test_what_is_under_way_at_a_drain_is_handed_back() -> None:
    queue, ledger = await filled(200), Ledger()

    async with Dispatcher(queue, ledger, SETTINGS) as dispatcher:
        await turns_until(lambda: queue.most_steps == 2)
        called = len(ledger.called)
        dispatcher.begin_drain()

    counts = await queue.counts()
    assert (counts.in_progress, counts.queued + called, counts.max_attempts) == (0, 200, 0)
    assert len(ledger.called) == called


async def test_a_store_that_fails_both_steps_is_waited_for_once(caplog: pytest.LogCaptureFixture) -> None:
    queue, ledger = await filled(200), Ledger()

    async with running(Dispatcher(queue, ledger, SETTINGS)) as dispatcher:
        await turns_until(lambda: queue.most_steps == 2)
        queue.is_down = True
        await settle_down(300)
        failed = dispatcher.metrics.rounds["failed"]
        queue.is_down = False
        await pass_time(queue, timedelta(seconds=2))
        await settle_down(3000)

    pauses = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert (failed, pauses) == (2, ["the store failed, next try in 1 s: lease failed"])
    assert set(ledger.ended.values()) == {1}


async def test_a_completion_that_is_not_answered_takes_its_slot_in_the_store() -> None:
    queue, ledger = await filled(200), Ledger()

    async with running(Dispatcher(queue, ledger, SETTINGS)):
        await turns_until(lambda: len(ledger.ended) > 0)
        queue.is_silent = True
        await settle_down(500)
        called, leases = len(ledger.called), queue.asked.count("lease 20")
        queue.is_silent = False
        await settle_down(3000)

    assert (called, leases, len(ledger.ended)) == (40, 2, 200)


async def test_a_store_whose_lease_steps_do_not_follow_settles_is_not_asked_for_slots_that_are_not_free() -> None:
    limits: list[int] = []

    class Apart(SlowQueue):
        async def lease(self, request: LeaseRequest) -> Leased:
            limits.append(request.limit)
            return await super().lease(request)

    queue = opened(Apart(clock=FakeClock()))
    await queue.queue_many([(f"key-{number}", Options()) for number in range(5)])

    async with running(Dispatcher(queue, Ledger(steps=5), DispatcherSettings(concurrency=1))):
        await settle_down(1000)

    assert limits == [1] * 6


async def test_a_store_that_refuses_to_be_asked_for_more_is_heard_for_what_is_under_way() -> None:
    class Refusing(LinedUp):
        def lease(self, request: LeaseRequest) -> Coroutine[Any, Any, Leased]:
            if self.most_steps == 2:
                raise StoreUnavailableError("no more")
            return super().lease(request)

    queue, ledger = opened(Refusing()), Ledger()
    await queue.queue_many([(f"key-{number:04}", Options()) for number in range(200)])

    async with running(Dispatcher(queue, ledger, SETTINGS)) as dispatcher:
        await settle_down(2000)
        assert dispatcher.metrics.rounds["failed"] > 0

    assert len(ledger.ended) == 80


async def test_a_loop_that_dies_hands_back_what_a_lease_step_under_way_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = await filled(200)
    dispatcher = Dispatcher(queue, nothing, SETTINGS)
    running = asyncio.ensure_future(dispatcher.run())
    await turns_until(lambda: queue.most_steps == 2)
    monkeypatch.setattr(dispatcher.health, "iterated", lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        await running

    counts = await queue.counts()
    assert (counts.in_progress, counts.max_attempts) == (0, 0)
