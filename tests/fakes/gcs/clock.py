"""The emulator's idea of time: a clock that tests move, independent of the local one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache

MICROSECONDS = 1_000_000


class ServerClock:
    """Wall time as the server sees it: what `Date`, `timeCreated` and generations are made of.

    Args:
        source: seconds since the Unix epoch; the local wall clock unless a test brings its own.
    """

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0
        self._date_second = -1
        self._date = ""

    def now(self) -> float:
        """Seconds since the Unix epoch, by this clock."""
        return self._source() + self._offset

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, by this clock."""
        return int(self.now() * MICROSECONDS)

    def advance(self, seconds: float) -> None:
        """Move the clock on by `seconds`; a negative number turns it back."""
        self._offset += seconds

    def set(self, moment: datetime) -> None:
        """Make it `moment` now; the clock runs on from there. `moment` must be aware."""
        if moment.tzinfo is None:
            raise ValueError("the server's clock takes aware datetimes")
        self._offset += moment.timestamp() - self.now()

    def freeze(self) -> None:
        """Stop the clock; only `advance` and `set` move it from now on."""
        stopped = self._source()
        self._source = lambda: stopped

    def follow(self, source: Callable[[], float], skew: float = 0.0) -> None:
        """Read `source` (seconds since the Unix epoch) from now on, plus `skew` seconds."""
        self._source, self._offset = source, skew

    def http_date(self) -> str:
        """The `Date` header; HTTP dates have no fraction, so one second shares one text."""
        second = int(self.now())
        if second != self._date_second:
            self._date_second, self._date = second, formatdate(second, usegmt=True)
        return self._date


def rfc3339(us: int) -> str:
    """Render microseconds since the epoch as the JSON API does: UTC, milliseconds, `Z`."""
    return f"{whole_second(us // MICROSECONDS)}.{us % MICROSECONDS // 1000:03d}Z"


@lru_cache(maxsize=1024)  # a listing shows thousands of objects of the same few seconds
def whole_second(second: int) -> str:
    """The date and time of a second since the epoch, UTC."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]
