"""Time as a parameter. Wall time is for not-before only; leases are judged by a clock that never jumps.

All times inside the library are whole microseconds: they compare exactly, survive every store unchanged, and cost a
fifth of a `datetime` on the hot path. `datetime` and `timedelta` appear at the public surface only.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

__all__ = ["LATEST_US", "Clock", "SystemClock", "Tick", "duration_us", "from_us", "to_us", "wait_first", "within"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# A day or two of each end of the calendar is left, so that what is shown in another time zone is on it as well.
_FIRST_SHOWN_US = (datetime(1, 1, 3, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_SHOWN_US = (datetime(9999, 12, 29, tzinfo=UTC) - _EPOCH) // _MICROSECOND

LATEST_US = 2**53 - 1
"""The latest point in time that differs from later ones (June 2255): a double in Redis or JSON holds it exactly."""

Tick = Callable[[int], None]
"""What a clock calls as time passes: receives `steady_us`."""


class Clock(Protocol):
    """Where a queue and a dispatcher get their time from."""

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch. May jump either way when an operator or NTP sets the clock."""

    def steady_us(self) -> int:
        """Microseconds since some fixed point. Never jumps, and goes on while the machine is suspended."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` (>= 0)."""

    def pump(self, tick: Tick, every: float) -> Callable[[], None]:
        """Call `tick(steady_us)` about every `every` seconds, outside any event loop; returns what stops it."""


class SystemClock:
    """The machine's own clocks: `time.time` for wall time, CLOCK_BOOTTIME (where there is one) for leases."""

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def steady_us(self) -> int:
        return time.clock_gettime_ns(_STEADY) // 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def pump(self, tick: Tick, every: float) -> Callable[[], None]:
        stopped = threading.Event()

        def pump() -> None:
            while not stopped.wait(every):
                try:
                    tick(self.steady_us())
                except Exception:  # a thread that dies silently would let every lease of the process lapse
                    log.exception("what the clock calls every %.1f s raised; it is called again", every)

        threading.Thread(target=pump, name="workqueue-clock", daemon=True).start()
        return stopped.set


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch of an aware datetime; capped at `LATEST_US`, at least 1 (0 means "none")."""
    return min(max((moment - _EPOCH) // _MICROSECOND, 1), LATEST_US)


def from_us(us: int) -> datetime:
    """The aware UTC datetime of microseconds since the epoch, or the nearest that a calendar has."""
    return _EPOCH + timedelta(microseconds=min(max(us, _FIRST_SHOWN_US), _LAST_SHOWN_US))


def duration_us(duration: timedelta) -> int:
    """Whole microseconds of a duration, rounded down."""
    return duration // _MICROSECOND


async def wait_first(clock: Clock, event: asyncio.Future[None], seconds: float) -> None:
    """Return when `event` is done or `seconds` have passed, whichever is first; `event` is done then."""

    def expire(_: asyncio.Task[None]) -> None:
        if not event.done():
            event.set_result(None)

    sleep = asyncio.ensure_future(clock.sleep(seconds))
    sleep.add_done_callback(expire)
    try:
        await event  # itself: each task or future between would cost a turn of the event loop
    finally:
        sleep.cancel()


async def within(clock: Clock, seconds: float, step: Coroutine[Any, Any, _T]) -> _T:
    """The result of `step`, which is cancelled once `seconds` of `clock` have passed.

    Raises:
        TimeoutError: it took longer.
    """
    working = asyncio.ensure_future(step)
    expiry = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((working, expiry), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise TimeoutError(f"not done within {seconds:g} s")
        return working.result()
    finally:
        working.cancel()
        expiry.cancel()
        await asyncio.wait((working, expiry))
