"""Stage 3: waiting until a key may be startable, without asking the file over and over.

What this process commits wakes its own waiters at once. What another process commits shows in SQLite's data version,
which the writer's thread looks at every 25 to 45 ms while somebody waits.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from workqueue.backends.sqlite.reads import Outlook, Reads
from workqueue.backends.sqlite.store import Change
from workqueue.backends.sqlite.writer import GroupCommit
from workqueue.clock import Clock, duration_us, wait_first

__all__ = ["Waiting"]


class _Waiter:
    """Somebody who waits for one of the `wanted` changes; `happened` is which of them came."""

    __slots__ = ("future", "happened", "wanted")

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.wanted = Change.EVERYTHING
        self.happened = Change.NOTHING

    def note(self, changed: Change) -> None:
        if changed & self.wanted:
            self.happened |= changed & self.wanted
            if not self.future.done():
                self.future.set_result(None)


class Waiting:
    """Everybody on this handle who waits.

    Args:
        reads: knows what there is to wait for.
        clock: measures the time to wait.
        at_most: look again after so long in any case, since the wall clock may have been set meanwhile.
    """

    def __init__(self, reads: Reads, clock: Clock, at_most: timedelta) -> None:
        self._reads = reads
        self._clock = clock
        self._at_most_us = duration_us(at_most)
        self._waiters: set[_Waiter] = set()

    def note(self, changed: Change) -> None:
        """Something was committed that changed this."""
        for waiter in list(self._waiters):
            waiter.note(changed)

    async def wait(self, writer: GroupCommit, timeout: timedelta, concurrency: int) -> None:
        """Return as soon as a key may be startable under `concurrency`, at the latest after `timeout`."""
        until_us = self._clock.steady_us() + duration_us(timeout)
        with writer.watching():
            while await self._wait_once(until_us, concurrency):
                pass

    async def _wait_once(self, until_us: int, concurrency: int) -> bool:
        """Wait for the next thing to happen; returns whether it could be in vain and there is time left."""
        waiter = _Waiter()
        self._waiters.add(waiter)  # before looking, so that nothing is missed in between
        try:
            outlook = await self._reads.look(lambda view: view.outlook(concurrency))
            left_us = until_us - self._clock.steady_us()
            if min(outlook.change_us, left_us) <= 0:
                return False
            waiter.wanted = _wanted(outlook)
            nap_us = min(outlook.change_us, left_us, self._at_most_us)
            await wait_first(self._clock, waiter.future, nap_us / 1e6)
        finally:
            self._waiters.discard(waiter)
        if waiter.happened:
            return not waiter.happened & ~Change.ELSEWHERE  # what others did may be none of our business: look again
        return nap_us == self._at_most_us


def _wanted(outlook: Outlook) -> Change:
    """While no slot is free, keys that become eligible are no reason to wake up."""
    return (Change.ELIGIBLE if outlook.room else Change.ROOM) | Change.ELSEWHERE
