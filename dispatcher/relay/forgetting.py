"""Forgetting outcomes when their time is over, and removing what was given up long ago.

Outcomes are keys that are eligible when they are to be forgotten, so a round that does nothing but complete them is
all it takes. Rounds a minute apart, and no dispatcher that waits: on SQLite it would wake at each commit of the
requests, which are in the same file, and hold them up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from dispatcher.relay.desk import purge
from dispatcher.round import Round
from dispatcher.settings import DispatcherSettings
from dispatcher.setup import Setup
from workqueue.attempt import Attempt
from workqueue.clock import Clock
from workqueue.errors import StoreError
from workqueue.fallbacks import FullQueue
from workqueue.metrics import DispatchMetrics

__all__ = ["Forgetting", "again_and_again"]

log = logging.getLogger(__name__)

_EVERY = timedelta(minutes=1)
_PURGE_EVERY = timedelta(minutes=10)
_SETTINGS = DispatcherSettings(concurrency=500)


class Forgetting:
    """Forgets the outcomes in `queue`.

    Args:
        queue: the outcomes' own.
    """

    def __init__(self, queue: FullQueue) -> None:
        self.metrics = DispatchMetrics.of(queue)
        self._queue = queue
        self._setup = Setup.of(queue, _done, _SETTINGS, metrics=self.metrics)

    async def forget_due(self) -> None:
        """Forget every outcome whose time is over.

        Raises:
            StoreError: the store failed.
            ExceptionGroup: it failed for some of them.
        """
        while True:
            await Round(self._setup).run()
            if not (await self._queue.counts()).queued:
                return


async def _done(id_: str, attempt: Attempt) -> None:
    """To complete an outcome is to forget it."""


@asynccontextmanager
async def again_and_again(
    outcomes: Forgetting, requests: FullQueue, keep_dead_letters: timedelta, clock: Clock
) -> AsyncIterator[None]:
    """Forget what is to be forgotten, until the block ends.

    Args:
        outcomes: forgets those that are due.
        requests: where the requests that were given up are.
        keep_dead_letters: for how long; zero = until somebody removes them.
        clock: says when to look again.
    """

    async def purge_old() -> None:
        dropped = await purge(requests, keep_dead_letters)
        if dropped:
            log.info("%d requests that were given up more than %s ago were removed", dropped, keep_dead_letters)

    steps = [(outcomes.forget_due, _EVERY)]
    if keep_dead_letters:
        steps.append((purge_old, _PURGE_EVERY))
    tasks = [asyncio.create_task(_repeat(step, every, clock)) for step, every in steps]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _repeat(step: Callable[[], Awaitable[None]], every: timedelta, clock: Clock) -> None:
    while True:
        try:
            await step()
        except (StoreError, ExceptionGroup) as error:
            log.warning("what is to be forgotten is forgotten later: %s", error)
        await clock.sleep(every.total_seconds())
