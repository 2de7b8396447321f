"""Stage 3: those in this process who wait until there may be a key to start."""

from __future__ import annotations

import asyncio

from workqueue.clock import Clock, wait_first

__all__ = ["Waiters"]


class Waiters:
    """Everybody on one event loop who waits for the same thing. Not thread-safe.

    Args:
        clock: measures how long they wait.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, seconds: float) -> None:
        """Return at the next `wake`, at the latest after `seconds`; at once if that is not more than zero."""
        if seconds <= 0:
            return
        woken = asyncio.get_running_loop().create_future()
        self._waiting.add(woken)
        try:
            await wait_first(self._clock, woken, seconds)
        finally:
            self._waiting.discard(woken)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
