"""Stage 4: the settings that are stored with a queue, and its starts-per-second (pure).

They are honoured inside the atomic lease step, so they hold over any number of dispatchers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from workqueue.errors import InvalidOptionsError
from workqueue.options import check_type

__all__ = ["Configuration", "TokenBucket"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """What an operator may change while dispatchers run; they pick it up within one round.

    Args:
        concurrency: the most live leases over all dispatchers (>= 1); None = only the dispatchers' own limits.
        paused: True = nothing is started; attempts under way go on.
        starts_per_second: the most starts per second over all dispatchers (> 0); None = no such limit.

    Raises:
        InvalidOptionsError: a value is out of range; nothing was changed.
    """

    concurrency: int | None = None
    paused: bool = False
    starts_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None:
            check_type("concurrency", self.concurrency, int, "a whole number")
        if self.starts_per_second is not None:
            check_type("starts_per_second", self.starts_per_second, (int, float), "a number")
        check_type("paused", self.paused, bool, "True or False")
        if self.concurrency is not None and not 1 <= self.concurrency < 2**31:
            raise InvalidOptionsError(f"concurrency is 1 or more, not {self.concurrency}; to start nothing, pause")
        if self.starts_per_second is not None and not 0 < self.starts_per_second < 2**31:
            raise InvalidOptionsError(f"starts_per_second is more than 0, not {self.starts_per_second}")

    def limit(self, concurrency: int) -> int:
        """The effective limit of a dispatcher that asks for `concurrency`: the lower of the two."""
        return concurrency if self.concurrency is None else min(concurrency, self.concurrency)

    def room(self, concurrency: int, running: int) -> int:
        """How many keys may be started beside `running` in progress, but for their rate; may be negative."""
        return 0 if self.paused else self.limit(concurrency) - running


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """Starts saved up, in starts, as of `at_us`. A bucket holds one second's worth, at least one start."""

    saved: float
    at_us: int

    @classmethod
    def full(cls, rate: float, now_us: int) -> Self:
        """A bucket that was filling for long under `rate` starts a second: what a new rate begins with."""
        return cls(_most(rate), now_us)

    def refilled(self, rate: float, now_us: int) -> TokenBucket:
        """The bucket at `now_us` under `rate` starts a second; a clock that went back refills nothing."""
        gained = max(now_us - self.at_us, 0) * rate / 1e6
        return TokenBucket(min(self.saved + gained, _most(rate)), now_us)

    def starts(self, room: int, rate: float | None, now_us: int) -> int:
        """How many of `room` starts may be made at `now_us`; all of them without a rate."""
        return room if rate is None else min(room, int(self.refilled(rate, now_us).saved))

    def spent(self, starts: int) -> TokenBucket:
        """The bucket after `starts` starts."""
        return TokenBucket(self.saved - starts, self.at_us)

    def wait_us(self, rate: float) -> int:
        """Microseconds until one start is saved up."""
        return max(int((1 - self.saved) * 1e6 / rate) + 1, 0) if self.saved < 1 else 0


def _most(rate: float) -> float:
    return max(rate, 1.0)
