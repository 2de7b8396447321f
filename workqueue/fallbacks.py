"""Everything beyond the three verbs, for backends that have only those.

`with_fallbacks(queue)` offers the optional Protocols over any queue: the backend's own where it has them, else the
versions here, which are correct but slower, and soft in P4 (`exact` False) because listing and starting are two steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Protocol, Self, TypeVar

from workqueue.clock import Clock
from workqueue.equipment import Equipment, EquippedQueue
from workqueue.errors import StartLostError, UnsupportedError
from workqueue.interface import KeyState, ObservedInProgressKey, OwnedInProgressKey, QueuedKey, Snapshot, WorkQueue
from workqueue.metrics import metrics_of
from workqueue.optional import (
    BulkQueue,
    ConfigurableQueue,
    CountingQueue,
    Counts,
    Found,
    Leased,
    LeaseRequest,
    LeasingQueue,
    PagedQueue,
    RecoveredOrphan,
    SearchableQueue,
    WaitingQueue,
    offers,
)
from workqueue.options import Options, checked_items
from workqueue.orphan import ORPHAN_ERROR, orphan_wait
from workqueue.page_scan import scan_page
from workqueue.paging import Page, PageRequest
from workqueue.throttle import Configuration

__all__ = ["FullQueue", "with_fallbacks"]

_SCAN = 10_000  # how many eligible keys are looked through where there is no index to ask
_POLL = timedelta(seconds=1)
_T = TypeVar("_T")


class FullQueue(
    WorkQueue,
    BulkQueue,
    LeasingQueue,
    CountingQueue,
    SearchableQueue,
    PagedQueue,
    WaitingQueue,
    ConfigurableQueue,
    EquippedQueue,
    Protocol,
):
    """A queue with every optional Protocol, as dispatchers and servers use it."""


def with_fallbacks(queue: WorkQueue, clock: Clock | None = None) -> FullQueue:
    """`queue` itself if it has every optional Protocol, else a view of it that has; `clock` instead of the queue's."""
    return queue if _is_full(queue) else _Completed(queue, clock)  # type: ignore[return-value]


def _is_full(queue: WorkQueue) -> bool:
    return all(offers(queue, protocol) for protocol in FullQueue.__bases__)


class _Completed:
    """A view of `queue` with the optional Protocols added where it lacks them."""

    def __init__(self, queue: WorkQueue, clock: Clock | None) -> None:
        self._queue = queue
        equipped = replace(Equipment.of(queue), metrics=metrics_of(queue))
        self.equipment = equipped if clock is None else replace(equipped, clock=clock)
        self._clock = self.equipment.clock
        self._home = self.equipment.home
        self.exact = offers(queue, LeasingQueue) and queue.exact

    async def queue(self, key: str, options: Options = Options()) -> None:
        await self._queue.queue(key, options)

    async def enumerate(self, limit: int = 100) -> Snapshot:
        return await self._queue.enumerate(limit)

    async def get(self, key: str) -> KeyState:
        return await self._queue.get(key)

    async def __aenter__(self) -> Self:
        await self._queue.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._queue.__aexit__(*exc_info)

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        if offers(self._queue, BulkQueue):
            return await self._queue.queue_many(items)
        self._check_home()
        for key, options in checked_items(items, self.equipment.max_payload):
            await self._queue.queue(key, options)
        return None

    async def lease(self, request: LeaseRequest) -> Leased:
        if offers(self._queue, LeasingQueue):
            return await self._queue.lease(request)
        snapshot = await self._queue.enumerate(request.limit)
        recovered: list[RecoveredOrphan] = []
        started: list[OwnedInProgressKey] = []
        errors: list[Exception] = []
        for orphan in (observed for observed in snapshot.in_progress if observed.orphaned):
            await _collect(_recover(orphan, request), recovered, errors)
        live = sum(not observed.orphaned for observed in snapshot.in_progress)
        room = max(min(request.limit, request.concurrency - live), 0)
        for queued in snapshot.queued[:room]:
            await _collect(_start(queued), started, errors)
        return Leased(started, recovered, errors)

    async def counts(self) -> Counts:
        if offers(self._queue, CountingQueue):
            return await self._queue.counts()
        return await _count(self._queue, self._clock.wall_us())

    async def find(self, key: str) -> Found:
        if offers(self._queue, SearchableQueue):
            return await self._queue.find(key)
        snapshot = await self._queue.enumerate(_SCAN)
        letters = [letter async for letter in snapshot.dead_letters if letter.key == key]
        queued = [entry for entry in (*snapshot.queued, *snapshot.twins) if entry.key == key]
        running = [observed for observed in snapshot.in_progress if observed.key == key]
        return Found(next(iter(queued), None), next(iter(running), None), next(iter(letters), None))

    async def delayed(self, limit: int = 100) -> Sequence[QueuedKey]:
        if offers(self._queue, SearchableQueue):
            return await self._queue.delayed(limit)
        self._check_home()
        return []

    async def page(self, request: PageRequest) -> Page:
        if offers(self._queue, PagedQueue):
            return await self._queue.page(request)
        self._check_home()
        return await scan_page(self, request)

    async def wait(self, timeout: timedelta, concurrency: int) -> None:
        if offers(self._queue, WaitingQueue):
            return await self._queue.wait(timeout, concurrency)
        self._check_home()
        return await self._clock.sleep(min(timeout, _POLL).total_seconds())

    async def configure(self, configuration: Configuration) -> None:
        if not offers(self._queue, ConfigurableQueue):
            self._check_home()
            raise UnsupportedError("this backend cannot store settings; set them where each dispatcher starts")
        await self._queue.configure(configuration)

    async def configuration(self) -> Configuration:
        if offers(self._queue, ConfigurableQueue):
            return await self._queue.configuration()
        self._check_home()
        return Configuration()

    def _check_home(self) -> None:
        """Before what this does without asking the queue, which checks all else."""
        if self._home is not None:
            self._home.check()


async def _collect(step: Awaitable[_T | None], done: list[_T], errors: list[Exception]) -> None:
    try:
        result = await step
    except Exception as error:  # noqa: BLE001 - keys started before must reach the caller, whatever this one's trouble is
        errors.append(error)
    else:
        if result is not None:
            done.append(result)


async def _start(queued: QueuedKey) -> OwnedInProgressKey | None:
    try:
        return await queued.start()
    except StartLostError:  # another dispatcher was faster; that is how they share a queue
        return None


async def _recover(orphan: ObservedInProgressKey, request: LeaseRequest) -> RecoveredOrphan | None:
    wait = orphan_wait(orphan.attempts, request.max_retry, request.backoff)
    applied = await (orphan.dead_letter(ORPHAN_ERROR) if wait is None else orphan.requeue(backoff=wait))
    if not applied:
        return None
    return RecoveredOrphan(
        key=orphan.key,
        attempts=orphan.attempts,
        owner=orphan.owner,
        priority=orphan.priority,
        first_queued_time=orphan.first_queued_time,
        dead_lettered=wait is None,
    )


async def _count(queue: WorkQueue, now_us: int) -> Counts:
    snapshot = await queue.enumerate(_SCAN)
    listed = [*snapshot.queued, *snapshot.twins]
    attempts = [key.attempts for key in listed] + [key.attempts for key in snapshot.in_progress]
    eligible_us = [
        max(q.queued_time.timestamp(), q.not_before.timestamp() if q.not_before else 0.0) for q in snapshot.queued
    ]
    return Counts(
        queued=len(snapshot.queued),
        twins=len(snapshot.twins),
        in_progress=len(snapshot.in_progress),
        dead_lettered=len([letter async for letter in snapshot.dead_letters]),
        oldest_queued_seconds=max(now_us / 1e6 - min(eligible_us), 0.0) if eligible_us else 0.0,
        max_attempts=max(attempts, default=0),
        in_progress_by_owner=Counter(observed.owner for observed in snapshot.in_progress),
    )
