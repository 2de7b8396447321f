"""Whether the store behind a receiver answers: asked when somebody wants to know, and not too often."""

from __future__ import annotations

import asyncio
import logging

from workqueue.clock import Clock, SystemClock
from workqueue.errors import KeyNotFoundError, WorkQueueError
from workqueue.interface import WorkQueue
from workqueue.shown import describe

__all__ = ["StoreReadiness"]

log = logging.getLogger(__name__)

_LASTS_US = 5_000_000
_PATIENCE_SECONDS = 3.0
_NO_KEY = "readiness-probe"


class StoreReadiness:
    """Looks up a key that need not be there; for all who ask within five seconds once.

    Args:
        queue: whose store it is.
        clock: says how old an answer is.
    """

    def __init__(self, queue: WorkQueue, clock: Clock | None = None) -> None:
        self._queue = queue
        self._clock: Clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._found = ""
        self._valid_until_us = 0

    async def why_unready(self) -> str:
        """Why the store cannot be used, in words that name no address; '' if it can."""
        async with self._lock:
            if self._clock.steady_us() >= self._valid_until_us:
                self._note(await self._ask())
                self._valid_until_us = self._clock.steady_us() + _LASTS_US
        return self._found

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._queue.get(_NO_KEY)
        except KeyNotFoundError:
            return ""
        except TimeoutError:
            return f"it does not answer within {_PATIENCE_SECONDS:g} s"
        except WorkQueueError as error:
            return describe(error)
        return ""

    def _note(self, trouble: str) -> None:
        found = "the store does not work; the log says why" if trouble else ""
        if found and not self._found:
            log.warning("not ready: %s", trouble)
        elif self._found and not found:
            log.info("ready again")
        self._found = found
