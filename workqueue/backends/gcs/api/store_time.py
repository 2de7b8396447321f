"""Stage 4: what time it is for the store: leases in a bucket are stamped and judged by the `Date` of its answers."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from workqueue.clock import Clock, SystemClock, to_us

__all__ = ["StoreTime"]

_SECOND_US = 1_000_000


class StoreTime:
    """The store's time, from the machine's steady clock and the `Date` headers heard so far.

    A header says a whole second, and that it was written between the request and its answer: so each one bounds how far
    the two clocks are apart, and the bounds of many answers narrow down to milliseconds. Dispatchers whose machines
    disagree by minutes still agree about leases.

    Args:
        clock: takes the store's place entirely (tests move it); None = the store and the machine's clocks.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._follows = clock is None
        self._clock = clock or SystemClock()
        self._apart_us = self._clock.wall_us() - self._clock.steady_us() if self._follows else 0
        self._least_us: int | None = None
        self._most_us = 0
        self._heard = ("", 0)

    def now_us(self) -> int:
        """Microseconds since the epoch as the store sees it; of a given clock, its steady time."""
        return self._clock.steady_us() + self._apart_us

    def steady_us(self) -> int:
        """The steady clock alone, to say when a request was sent."""
        return self._clock.steady_us()

    def heard(self, date: str, sent_us: int, received_us: int) -> None:
        """Learn from an answer: its `Date`, and between which two steady times it was on its way."""
        if not self._follows or not date:
            return
        if date != self._heard[0]:  # hundreds of answers a second share one text
            self._heard = (date, _parse(date))
        written_us = self._heard[1]
        if written_us:
            self._narrow(written_us - received_us, written_us + _SECOND_US - sent_us)

    def _narrow(self, least_us: int, most_us: int) -> None:
        if self._least_us is not None:
            narrowed = max(self._least_us, least_us), min(self._most_us, most_us)
            if narrowed[0] <= narrowed[1]:  # else one of the clocks was set, or they drifted apart: start over
                least_us, most_us = narrowed
        self._least_us, self._most_us = least_us, most_us
        self._apart_us = (least_us + most_us) // 2


def _parse(date: str) -> int:
    try:
        return to_us(parsedate_to_datetime(date).astimezone(UTC))
    except ValueError:
        return 0
