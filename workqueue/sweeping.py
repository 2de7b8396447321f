"""One verb over many keys, for commands and for the console: those that match, page by page; paced, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from workqueue.clock import Clock, SystemClock
from workqueue.errors import StoreError
from workqueue.fallbacks import FullQueue
from workqueue.paging import MAX_LIMIT, Place
from workqueue.searching import Filter, Matches, search, since

__all__ = ["AT_ONCE", "Act", "found_before", "sweep"]

AT_ONCE = 64
"""How many keys are done side by side: enough for stores that commit or travel in groups."""

_BUDGET = 1000  # looked at in one search: whoever counts or stops has a word between two
_NAP_SECONDS = 0.2  # the longest that a stop is not heard

Act = Callable[[], Awaitable[str]]
"""Do it to one key; returns '' or why it was not done."""


async def found_before(
    queue: FullQueue, place: Place, wanted: Filter, began: datetime, *, limit: int = MAX_LIMIT
) -> AsyncIterator[Matches]:
    """All that matches, search by search; of it only keys that have been where they are since before `began`.

    So a key that is re-driven and fails again is not found twice.

    Args:
        queue: any queue.
        place: where to look.
        wanted: which keys are meant.
        began: a moment on the clock of the queue.
        limit: at most this many in one search; fewer are fresher when their turn comes.
    """
    cursor: str | None = ""
    while cursor is not None:
        found = await search(queue, place, wanted, limit=limit, cursor=cursor, budget=_BUDGET)
        yield replace(found, keys=[key for key in found.keys if (since(key) or began) <= began])
        cursor = found.cursor or None


def _never() -> bool:
    return False


async def sweep(
    acts: AsyncIterator[tuple[str, Act]],
    count: Callable[[str, str], None],
    *,
    rate: float | None = None,
    clock: Clock | None = None,
    is_stopped: Callable[[], bool] = _never,
) -> None:
    """Do `acts`, each with its key, until they are done or stopped. What has begun is waited for in any case.

    Args:
        acts: what to do, and to which key.
        count: called after each with its key, and with '' or why it was not done.
        rate: at most this many a second; None = no limit.
        clock: where time comes from.
        is_stopped: asked before each, and while its time has not come.

    Raises:
        StoreError: the first one; no act begins after it.
    """
    errors: list[StoreError] = []
    slots = asyncio.Semaphore(AT_ONCE)

    async def do(key: str, act: Act) -> None:
        try:
            count(key, await act())
        except StoreError as error:
            errors.append(error)
        finally:
            slots.release()

    def is_over() -> bool:
        return bool(errors) or is_stopped()

    async with asyncio.TaskGroup() as group:
        async for key, act in _paced(acts, rate, clock or SystemClock(), is_over):
            await slots.acquire()
            if is_over():
                break
            group.create_task(do(key, act))
    if errors:
        raise errors[0]


async def _paced(
    acts: AsyncIterator[tuple[str, Act]], rate: float | None, clock: Clock, is_over: Callable[[], bool]
) -> AsyncIterator[tuple[str, Act]]:
    next_us = clock.steady_us()
    async for each in acts:
        while (wait_us := next_us - clock.steady_us()) > 0 and not is_over():
            await clock.sleep(min(wait_us / 1e6, _NAP_SECONDS))
        next_us = max(next_us, clock.steady_us()) + (int(1e6 / rate) if rate else 0)
        yield each
