"""What the dispatcher's tests share: memory queues on a fake clock, slow and failing ones, and a sink for events."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from dispatcher import Attempt, Dispatcher, ErrorEvent
from workqueue import KeyNotFoundError, KeyState, KeyStatus, WorkQueue
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.handles import Owned
from workqueue.metrics import EventResult
from workqueue.optional import Completed, Leased, LeaseRequest
from workqueue.rules import Requeue
from workqueue.testing import FakeClock, FlakyQueue

__all__ = [
    "Ledger",
    "Recorder",
    "SlowQueue",
    "bounded",
    "clock_of",
    "dead_letters",
    "flaky",
    "memory",
    "nothing",
    "opened",
    "pass_time",
    "running",
    "settle_down",
    "state",
    "states",
    "until",
]

_T = TypeVar("_T")
_Q = TypeVar("_Q", bound=WorkQueue)


def bounded(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async function on a loop of its own, for a minute at most; tests/conftest.py does so with every test."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


class Recorder:
    """Keeps the error events it is sent."""

    def __init__(self) -> None:
        self.results: dict[EventResult, int] = {"sent": 0, "failed": 0, "dropped": 0}
        self.events: list[ErrorEvent] = []

    def send(self, event: ErrorEvent) -> None:
        self.events.append(event)

    async def flush(self, timeout: timedelta) -> None:
        self.results["sent"] = len(self.events)

    async def give_up(self) -> None:
        pass

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.key, event.failure.action) for event in self.events]


class Ledger:
    """A callback that notes when it was called and when it ended, and runs until it is let go."""

    def __init__(self, steps: int = 0) -> None:
        self.steps = steps
        self.called: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    async def __call__(self, key: str, attempt: Attempt) -> None:
        self.called[key] += 1
        for _ in range(self.steps):
            await asyncio.sleep(0)
        self.ended[key] += 1


class SlowQueue(MemoryQueue):
    """A store at some distance: every step takes a few turns of the event loop before it happens and after."""

    async def lease(self, request: LeaseRequest) -> Leased:
        return await _at_a_distance(super().lease, request)

    async def complete(self, owned: Owned) -> bool:
        return await _at_a_distance(super().complete, owned)

    def complete_soon(self, owned: Owned, ended: Completed) -> None:
        asyncio.ensure_future(self.complete(owned)).add_done_callback(lambda done: _answer(done, ended))

    async def requeue(self, owned: Owned, how: Requeue) -> bool:
        return await _at_a_distance(super().requeue, owned, how)

    async def dead_letter(self, owned: Owned, error: str) -> bool:
        return await _at_a_distance(super().dead_letter, owned, error)

    async def release(self, owned: Owned) -> bool:
        return await _at_a_distance(super().release, owned)


def _answer(completing: asyncio.Future[bool], ended: Completed) -> None:
    if not completing.cancelled():  # the event loop ends
        error = completing.exception()
        ended(error if isinstance(error, Exception) else completing.result())


async def _at_a_distance(step: Callable[..., Coroutine[Any, Any, _T]], *args: object) -> _T:
    await asyncio.sleep(0)
    result = await step(*args)
    await asyncio.sleep(0)
    return result


def opened(queue: _Q) -> _Q:
    """Enter a queue that lives in memory and awaits nothing: for tests whose queue ends with their event loop."""
    entering = queue.__aenter__()
    with contextlib.suppress(StopIteration):
        entering.send(None)
        raise AssertionError("this queue awaits something when it is entered")
    return queue


def memory() -> MemoryQueue:
    return opened(MemoryQueue(clock=FakeClock()))


def flaky() -> FlakyQueue:
    return FlakyQueue(memory())


def clock_of(queue: MemoryQueue | FlakyQueue) -> FakeClock:
    assert isinstance(queue.clock, FakeClock)
    return queue.clock


async def nothing(key: str, attempt: Attempt) -> None:
    """A reconciler for which everything is as it should be."""


async def state(queue: WorkQueue, key: str) -> KeyState:
    try:
        return await queue.get(key)
    except KeyNotFoundError:
        return KeyState(key, KeyStatus.UNKNOWN)


async def states(queue: WorkQueue, *keys: str) -> dict[str, str]:
    return {key: (await state(queue, key)).status.name for key in keys}


async def dead_letters(queue: WorkQueue) -> dict[str, str]:
    return {letter.key: letter.error async for letter in (await queue.enumerate(0)).dead_letters}


async def settle_down(turns: int = 50) -> None:
    """Let the event loop do what it can do without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def pass_time(
    queue: MemoryQueue | FlakyQueue, duration: timedelta, step: timedelta = timedelta(seconds=1)
) -> None:
    """Let fake time pass in steps, and everybody act on each."""
    passed = timedelta(0)
    while passed < duration:
        clock_of(queue).advance(min(step, duration - passed))
        passed += step
        await settle_down(10)


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that really happens elsewhere: in a thread, a socket, another process."""
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def running(dispatcher: Dispatcher) -> AsyncIterator[Dispatcher]:
    """A dispatcher that runs beside the block and is stopped, not drained, at its end."""
    async with dispatcher:
        await settle_down()
        try:
            yield dispatcher
        finally:
            dispatcher.stop()
            await settle_down()
