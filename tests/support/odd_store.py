"""For the tests of what somebody else wrote into a store: everything that a dispatcher and an operator do with it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from workqueue.errors import KeyNotFoundError
from workqueue.interface import Snapshot
from workqueue.optional import LeaseRequest
from workqueue.paging import PageRequest, Place
from workqueue.testing import FakeClock

__all__ = ["look_at_everything", "run_what_there_is"]

_SHOWN = (
    *("key", "priority", "attempts", "payload", "meta", "last_error", "queued_time", "first_queued_time"),
    *("not_before", "floor", "owner", "orphaned", "attempt_began", "lease_expires", "error", "failed_time"),
)


async def look_at_everything(queue: Any, *keys: str) -> Snapshot:
    """Read whatever operators are shown; nothing of it may raise."""
    snapshot: Snapshot = await queue.enumerate(100)
    letters = [letter async for letter in snapshot.dead_letters]
    _read([*snapshot.in_progress, *snapshot.queued, *snapshot.twins, *letters, *await queue.delayed(100)])
    for place in Place:
        _read(await _paged(queue, place))
    await queue.counts()
    await queue.configuration()
    for key in keys:
        found = await queue.find(key)
        _read([handle for handle in (found.queued, found.in_progress, found.dead_letter) if handle is not None])
        try:
            await queue.get(key)
        except KeyNotFoundError:
            continue
    return snapshot


async def run_what_there_is(queue: Any, clock: FakeClock, odd: str) -> set[str]:
    """Two rounds 20 minutes apart, an enqueue of `odd` during the first one; returns the keys that ran."""
    ran: set[str] = set()
    for round_number in range(2):
        started = (await queue.lease(LeaseRequest(100, 100, 3))).started
        _read(started)
        await queue.queue(odd)
        for owned in started:
            ran.add(owned.key)
            is_odd_first = owned.key == odd and not round_number
            settled = await (owned.requeue(error="boom") if is_odd_first else owned.complete())
            assert settled or owned.key == odd
        await queue.wait(timedelta(0), 100)
        clock.freeze(timedelta(minutes=20))
    return ran


async def _paged(queue: Any, place: Place) -> list[object]:
    handles: list[object] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await queue.page(PageRequest(place, 2, cursor))
        handles += page.keys
        cursor = page.cursor or None
    return handles


def _read(handles: Iterable[object]) -> None:
    for handle in handles:
        repr(handle)
        for name in _SHOWN:
            getattr(handle, name, None)
