"""Whether there is room for more requests, known without asking the store for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from workqueue.clock import Clock
from workqueue.errors import StoreError
from workqueue.optional import CountingQueue, Counts

__all__ = ["Pressure"]

log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0


class Pressure:
    """Counts the requests that wait: what the store said within the last second, and what was added since.

    Args:
        queue: where they wait.
        most: how many there may be; 0 = as many as the store takes.
        clock: says when to count again.
    """

    def __init__(self, queue: CountingQueue, most: int, clock: Clock) -> None:
        self._queue = queue
        self._most = most
        self._clock = clock
        self._stored = 0
        self._added = 0

    @property
    def is_full(self) -> bool:
        """Whether no more may be stored."""
        return bool(self._most) and self._stored + self._added >= self._most

    def added(self) -> None:
        """One more was stored."""
        self._added += 1

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """Count again and again, until the block ends."""
        if not self._most:
            yield
            return
        await self._measure()
        measuring = asyncio.create_task(self._keep_measuring(), name="relay-pressure")
        try:
            yield
        finally:
            measuring.cancel()
            await asyncio.wait((measuring,))

    async def _keep_measuring(self) -> None:
        while True:
            await self._clock.sleep(_EVERY_SECONDS)
            await self._measure()

    async def _measure(self) -> None:
        added = self._added
        try:
            counts = await self._queue.counts()
        except StoreError as error:  # then nothing can be added either
            log.debug("the requests that wait cannot be counted: %s", error)
            return
        self._stored, self._added = _waiting(counts), self._added - added


def _waiting(counts: Counts) -> int:
    return counts.queued + counts.not_before + counts.twins + counts.in_progress
