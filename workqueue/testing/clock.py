"""For tests: time that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import timedelta

from workqueue.clock import Tick, duration_us

__all__ = ["FakeClock"]

_STEP_US = 1_000_000


class FakeClock:
    """A clock that stands still until a test moves it; renewers and sleepers of the process follow it.

    Args:
        start_us: the wall time to begin at, microseconds since the epoch.
    """

    def __init__(self, start_us: int = 1_750_000_000_000_000) -> None:
        self._wall_us = start_us
        self._steady_us = 1_000_000_000
        self._ticks: dict[int, Tick] = {}
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ids = itertools.count()

    def wall_us(self) -> int:
        return self._wall_us

    def steady_us(self) -> int:
        return self._steady_us

    @property
    def sleeping(self) -> int:
        """How many sleep on this clock now."""
        return sum(not sleeper.done() for _, _, sleeper in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was moved on by `seconds`."""
        due = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._steady_us + int(seconds * 1e6), next(self._ids), due))
        await (due if seconds > 0 else asyncio.sleep(0))

    def pump(self, tick: Tick, every: float) -> Callable[[], None]:
        number = next(self._ids)
        self._ticks[number] = tick
        return lambda: self._ticks.pop(number, None) and None

    def advance(self, duration: timedelta) -> None:
        """Let time pass, second by second: renewals happen when they are due, sleepers wake."""
        left = duration_us(duration)
        while left > 0:
            step = min(left, _STEP_US)
            self._move(step)
            left -= step

    def freeze(self, duration: timedelta) -> None:
        """Let time pass while this process does not run (a suspended machine, a stopped container): one late tick."""
        self._move(duration_us(duration))

    def jump_wall(self, duration: timedelta) -> None:
        """Set the wall clock forward or back; the steady clock, which judges leases, does not notice."""
        self._wall_us += duration_us(duration)

    def _move(self, us: int) -> None:
        self._wall_us += us
        self._steady_us += us
        for tick in list(self._ticks.values()):
            tick(self._steady_us)
        while self._sleepers and self._sleepers[0][0] <= self._steady_us:
            sleeper = heapq.heappop(self._sleepers)[2]
            if not sleeper.done():
                sleeper.get_loop().call_soon_threadsafe(_wake, sleeper)


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
