"""Stage 2: keeps the gauges of a queue fresh in the background, so that a scrape asks no store and cannot be slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Self

from workqueue.clock import Clock, SystemClock, duration_us
from workqueue.errors import StoreError
from workqueue.metrics import DispatchMetrics, QueueMetrics
from workqueue.optional import ConfigurableQueue, CountingQueue, offers
from workqueue.safe_text import describe, shown_duration

__all__ = ["DEFAULT_REFRESH", "GaugeRefresher"]

log = logging.getLogger(__name__)

DEFAULT_REFRESH = timedelta(seconds=10)


class GaugeRefresher:
    """Counts a queue once in a period and samples the running attempts, from `async with` until its end.

    Args:
        queue: what to count.
        metrics: where the counts go. While they cannot be had there are none, so that no gauge shows an old number.
        dispatchers: whose running attempts to sample.
        every: how often.
        clock: where time comes from.
    """

    def __init__(
        self,
        queue: CountingQueue,
        metrics: QueueMetrics,
        dispatchers: Sequence[DispatchMetrics] = (),
        *,
        every: timedelta = DEFAULT_REFRESH,
        clock: Clock | None = None,
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._dispatchers = dispatchers
        self._every = every
        self._clock = clock or SystemClock()
        self._task: asyncio.Task[None] | None = None
        self._due_us = 0
        self._is_logged = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"gauges-{self._metrics.name}")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._metrics.counts = None

    async def refresh(self) -> None:
        """Do now what the background does once in a period."""
        for dispatcher in self._dispatchers:
            dispatcher.sample_leases(self._clock.steady_us())
        try:
            async with asyncio.timeout(self._every.total_seconds()):
                self._metrics.counts = await self._queue.counts()
                if self._dispatchers and offers(self._queue, ConfigurableQueue):
                    self._metrics.configuration = await self._queue.configuration()
        except TimeoutError:
            self._uncounted(f"the store did not answer within {shown_duration(self._every)}")
        except StoreError as error:
            self._uncounted(describe(error))
        else:
            self._is_logged = False

    def _uncounted(self, why: str) -> None:
        if not self._is_logged:  # said once, not at every refresh of a long outage
            log.warning("queue %s cannot be counted, its gauges are gone: %s", self._metrics.name, why)
        self._is_logged = True
        self._metrics.counts = None

    def nudge(self) -> None:
        """Refresh in the background if that is due, for who has no `async with` to run in.

        A scrape may call this and go on with what was counted last: waiting for a store that is down, it would time
        out, and lose every other metric just when they are needed.
        """
        idle = self._task is None or self._task.done()
        if idle and self._clock.steady_us() >= self._due_us:
            self._task = asyncio.create_task(self._refresh_safely(), name=f"gauges-{self._metrics.name}")

    async def _run(self) -> None:
        while True:
            await self._refresh_safely()
            await self._clock.sleep(self._every.total_seconds())

    async def _refresh_safely(self) -> None:
        self._due_us = self._clock.steady_us() + duration_us(self._every)
        try:
            await self.refresh()
        except Exception:  # a refresher that dies would leave gauges that stand still
            log.exception("counting queue %s failed; trying again", self._metrics.name)
            self._metrics.counts = None
