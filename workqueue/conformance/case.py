"""What a scenario is given: a fresh, empty queue, further handles on it as other processes would have, and a clock."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Self, cast

from workqueue.backoff import Backoff
from workqueue.clock import from_us
from workqueue.errors import KeyNotFoundError, WorkQueueError
from workqueue.fallbacks import FullQueue, with_fallbacks
from workqueue.interface import (
    DeadLetteredKey,
    KeyState,
    ObservedInProgressKey,
    OwnedInProgressKey,
    QueuedKey,
    WorkQueue,
)
from workqueue.optional import CompletingQueue, Leased, LeaseRequest
from workqueue.options import Options
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration

__all__ = ["MANY", "Case", "Target", "expect", "expect_of", "refused"]

log = logging.getLogger(__name__)

MANY = 1000
"""More than any scenario has in progress or queued at once."""

_LONG = timedelta(days=1)


class Target(Protocol):
    """Where scenarios get their queues from; all that a backend's author writes to have the suite run.

    `lease` is how long a lease lasts on the queues it opens, `durable` whether keys outlive the process, `fake_clock`
    whether the queues take all their time from the clock they are given.
    """

    @property
    def lease(self) -> timedelta: ...
    @property
    def durable(self) -> bool: ...
    @property
    def fake_clock(self) -> bool: ...

    def open(self, name: str, *, clock: FakeClock | None, owner: str) -> WorkQueue:
        """A handle of its own on the queue `name`, not entered yet; a name that was never used is an empty queue."""


class Case:
    """One fresh queue. `queue` is the first handle on it; handles have every optional Protocol, if need be by fallback.

    Args:
        target: opens the handles.
    """

    queue: FullQueue
    raw: WorkQueue  # the last handle opened, without fallbacks

    def __init__(self, target: Target) -> None:
        self.target = target
        self.clock = FakeClock()
        # Short, because a GCS prefix, a 1000-byte key and the folder must fit into 1024 bytes together.
        self.name = f"c{secrets.token_hex(4)}"
        self._handles: list[FullQueue] = []

    async def __aenter__(self) -> Self:
        self.queue = await self.peer()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self.reopen()  # leases that the scenario left are nobody's now
            await self._empty()
        except WorkQueueError as error:  # what the scenario found matters more
            log.warning("queue %s could not be emptied after its scenario: %s", self.name, error)
        finally:
            await self._close_all()

    async def peer(self, owner: str = "") -> FullQueue:
        """Another handle on the same queue, as another process would open it."""
        clock = self.clock if self.target.fake_clock else None
        self.raw = self.target.open(self.name, clock=clock, owner=owner)
        queue = with_fallbacks(self.raw, clock)
        await queue.__aenter__()
        self._handles.append(queue)
        return queue

    async def close(self, queue: FullQueue) -> None:
        """Close one handle, as a process does that ends in good order."""
        self._handles.remove(queue)
        await queue.__aexit__(None, None, None)

    async def reopen(self) -> None:
        """Close every handle, and open the queue again as `queue`."""
        await self._close_all()
        self.queue = await self.peer()

    async def _close_all(self) -> None:
        for handle in list(self._handles):
            await self.close(handle)

    # time

    @property
    def now(self) -> datetime:
        """The wall time that the queue goes by."""
        return from_us(self.clock.wall_us()) if self.target.fake_clock else datetime.now(UTC)

    def later(self, seconds: int) -> datetime:
        """The wall time in `seconds` from now; whole seconds, which is all that GCS keeps of a not-before."""
        return self.now + timedelta(seconds=seconds)

    def advance(self, seconds: int) -> None:
        """Let time pass; every handle renews its leases."""
        self.clock.advance(timedelta(seconds=seconds))

    def lapse(self) -> None:
        """Let a lease and a second pass: a lease that is not renewed has lapsed then."""
        self.clock.advance(self.target.lease + timedelta(seconds=1))

    async def done_in_time(self, task: asyncio.Future[Any], seconds: int) -> bool:
        """Let up to `seconds` pass, one by one, until `task` is done; returns whether it is."""
        for _ in range(seconds):
            await asyncio.wait({task}, timeout=0.002)
            if task.done():
                return True
            self.advance(1)
        return task.done()

    # steps that most scenarios take

    async def enqueue(self, key: str, **options: Any) -> None:
        """Enqueue `key` with these `Options`."""
        await self.queue.queue(key, Options(**options))

    async def start(self, key: str, queue: FullQueue | None = None) -> OwnedInProgressKey:
        """Start the next eligible key, which must be `key`."""
        leased = await self.lease(queue, limit=1)
        expect([owned.key for owned in leased.started], [key], "the started keys")
        return leased.started[0]

    async def started(self, key: str, **options: Any) -> OwnedInProgressKey:
        """Enqueue `key` with these `Options`, and start it."""
        await self.enqueue(key, **options)
        return await self.start(key)

    async def orphan(self, key: str, **options: Any) -> None:
        """Enqueue and start `key`, and let its lease lapse."""
        (await self.started(key, **options)).abandon()
        self.lapse()

    def complete_soon(self, *keys: OwnedInProgressKey) -> list[asyncio.Future[Any]]:
        """What will be heard of `keys`, whose completion is in line when this returns."""
        queue = cast(CompletingQueue, self.queue)
        heard: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in keys]
        for key, answer in zip(keys, heard, strict=True):
            queue.complete_soon(key, answer.set_result)  # which raises if it is called twice
        return heard

    async def failed(self, key: str, error: str = "boom", **options: Any) -> None:
        """Enqueue, start and dead-letter `key`."""
        expect(await (await self.started(key, **options)).dead_letter(error), True, "dead_letter()")

    async def lease(
        self,
        queue: FullQueue | None = None,
        limit: int = MANY,
        concurrency: int = MANY,
        max_retry: int = 0,
        backoff: Backoff | None = None,
    ) -> Leased:
        """One lease step of `queue`, or of the first handle."""
        leased = await (queue or self.queue).lease(LeaseRequest(limit, concurrency, max_retry, backoff))
        expect(list(leased.errors), [], "the errors of a lease step")
        return Leased(list(leased.started), list(leased.recovered))

    # views

    async def eligible(self, limit: int = MANY) -> list[str]:
        """The eligible keys in order."""
        return [queued.key for queued in (await self.queue.enumerate(limit)).queued]

    async def listed(self, key: str) -> QueuedKey:
        """The handle of an eligible key, or of a twin."""
        snapshot = await self.queue.enumerate(MANY)
        return next(queued for queued in (*snapshot.queued, *snapshot.twins) if queued.key == key)

    async def observed(self, key: str, queue: FullQueue | None = None) -> ObservedInProgressKey:
        """The handle of a key in progress, as anybody may have it."""
        snapshot = await (queue or self.queue).enumerate(0)
        return next(observed for observed in snapshot.in_progress if observed.key == key)

    async def dead_letters(self) -> list[DeadLetteredKey]:
        """Every dead letter, by key."""
        letters = (await self.queue.enumerate(0)).dead_letters
        return sorted([letter async for letter in letters], key=lambda letter: letter.key)

    async def dead_letter(self, key: str) -> DeadLetteredKey:
        """The dead letter of `key`."""
        return next(letter for letter in await self.dead_letters() if letter.key == key)

    async def get(self, key: str) -> KeyState:
        """The state of `key`."""
        return await self.queue.get(key)

    async def gone(self, key: str) -> bool:
        """Whether `key` is nowhere."""
        try:
            await self.queue.get(key)
        except KeyNotFoundError:
            return True
        return False

    async def everything(self) -> dict[str, list[tuple[object, ...]]]:
        """All that anybody can see of this queue, to be compared with what is seen later."""
        snapshot = await self.queue.enumerate(MANY)
        return {
            "in progress": sorted((o.key, o.attempts, o.owner, o.orphaned) for o in snapshot.in_progress),
            "queued": [_facts(queued) for queued in snapshot.queued],
            "twins": sorted(_facts(twin) for twin in snapshot.twins),
            "dead-lettered": [(d.key, d.attempts, d.error, d.failed_time) for d in await self.dead_letters()],
        }

    async def _empty(self) -> None:
        """Leave nothing behind in a store that outlives the scenario."""
        queue = self.queue
        for _ in range(3):  # a twin is listed as eligible only once its key is no longer in progress
            if self.target.fake_clock:
                self.clock.freeze(_LONG)
            snapshot = await queue.enumerate(MANY)
            letters = [letter async for letter in snapshot.dead_letters]
            waiting = [*snapshot.queued, *snapshot.twins]
            for observed in snapshot.in_progress:
                await observed.requeue()
            for queued in waiting:
                await queued.drop()
            for letter in letters:
                await letter.drop()
            if not (snapshot.in_progress or waiting or letters):
                break
        if await queue.configuration() != Configuration():
            await queue.configure(Configuration())


def _facts(queued: QueuedKey) -> tuple[object, ...]:
    meta = tuple(sorted(queued.meta.items()))
    place = (queued.priority, queued.queued_time, queued.not_before, queued.floor)
    return (queued.key, queued.attempts, *place, queued.payload, meta)


def expect(actual: object, expected: object, what: str = "it") -> None:
    """Not `assert`: this must hold under `python -O`, and says what was found without pytest's help."""
    if actual != expected:
        raise AssertionError(f"{what}: found {actual!r}, expected {expected!r}")


def expect_of(subject: object, what: str, **attributes: object) -> None:
    """Fail unless these attributes of `subject` are as expected; the first that differs is named."""
    for name, expected in attributes.items():
        actual = getattr(subject, name)
        expect(dict(actual) if name == "meta" else actual, expected, f"{name} of {what}")


async def refused(error: type[Exception], step: Awaitable[object]) -> None:
    """Fail unless `step` raises `error`."""
    try:
        answer = await step
    except error:
        return
    raise AssertionError(f"found the answer {answer!r}, expected {error.__name__}")
