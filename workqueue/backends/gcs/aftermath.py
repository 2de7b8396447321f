"""Stage 4: steps that start keys are never cut off halfway: what a cancelled caller leaves is ended and handed back.

A start is several requests. Cut off between two of them, nobody knows whether it won a lease, and nobody is there to
settle the keys that it did win: they would be renewed for as long as the process lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from workqueue.errors import WorkQueueError

__all__ = ["Aftermath"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_PATIENCE_SECONDS = 5.0


class Aftermath:
    """Runs steps, and ends those whose callers were cancelled."""

    def __init__(self) -> None:
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, step: Coroutine[Any, Any, _T], hand_back: Callable[[_T], Awaitable[None]]) -> _T:
        """Run a step that a cancellation of its caller does not cut off.

        Args:
            step: what starts keys.
            hand_back: gives back what the step started, once it has ended without a caller.
        """
        loop = asyncio.get_running_loop()
        running = loop.create_task(step)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            ending = loop.create_task(_end(running, hand_back))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            raise

    async def close(self) -> None:
        """Wait for what is being handed back; what a store that is down keeps from it is left to its leases."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=_PATIENCE_SECONDS)


async def _end(running: asyncio.Task[_T], hand_back: Callable[[_T], Awaitable[None]]) -> None:
    try:
        await hand_back(await running)
    except WorkQueueError as error:
        log.debug("a step whose caller was cancelled failed, what it started is left to its leases: %s", error)
