"""Every number that a relay takes, with its default and its range. No environment is read here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dispatcher.relay.request import HEAD_BYTES
from dispatcher.settings import DispatcherSettings
from workqueue.backoff import Backoff
from workqueue.errors import InvalidSettingError

__all__ = ["IDEMPOTENCY", "RelaySettings", "retry_delay"]

IDEMPOTENCY = timedelta(hours=24)
"""For how long a delivered request with an `Idempotency-Key` is known, so that its repetition is not sent again."""

_FIRST_RETRY = timedelta(seconds=1)
_LAST_RETRY = timedelta(minutes=10)
_LONGEST_CALL = timedelta(hours=1)
_AROUND_A_CALL = timedelta(minutes=2)  # waiting for a turn before it, noting what came of it afterwards
_PLACES_PER_TURN = 10
_MOST_PER_TARGET = 10_000


def retry_delay(tries: int, rand: float = 0.0) -> timedelta:
    """How long a request waits after try number `tries` failed: 1 s doubling to 10 min, plus `rand` of half of it."""
    delay = min(_FIRST_RETRY * (1 << min(max(tries, 1) - 1, 16)), _LAST_RETRY)
    return delay + delay * (rand / 2)


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a relay goes about its requests.

    Args:
        per_target: calls at a time to one target; 1 to 10,000.
        concurrency: requests in hand at a time, over all relays of the queue; 0 = ten times `per_target`. It must be
            more than `per_target`, or one target could hold every place.
        retry_limit: give a request up at this failed try; 0 = never.
        timeout: how long a call may take where the request does not say; at most 1 h.
        max_body: the largest body, in bytes.
        keep_delivered: for how long delivered requests are kept with their outcomes; zero = not at all.
        keep_dead_letters: for how long requests that were given up are kept; zero = until somebody removes them.
        most_stored: refuse requests while this many wait; 0 = take all that the store takes.
        drain_timeout: how long calls may go on once the relay is being stopped.

    Raises:
        InvalidSettingError: a value is out of range; the message names it.
    """

    per_target: int = 10
    concurrency: int = 0
    retry_limit: int = 10
    timeout: timedelta = timedelta(seconds=10)
    max_body: int = 1024 * 1024
    keep_delivered: timedelta = timedelta(0)
    keep_dead_letters: timedelta = timedelta(0)
    most_stored: int = 0
    drain_timeout: timedelta = timedelta(seconds=20)

    def __post_init__(self) -> None:
        if not 1 <= self.per_target <= _MOST_PER_TARGET:
            raise InvalidSettingError(f"per_target is from 1 to {_MOST_PER_TARGET}, not {self.per_target}")
        if self.concurrency and self.concurrency <= self.per_target:
            raise InvalidSettingError("concurrency is more than per_target, or one target could hold every place")
        if not timedelta(milliseconds=1) <= self.timeout <= _LONGEST_CALL:
            raise InvalidSettingError(f"timeout is from 1 ms to {_LONGEST_CALL}, not {self.timeout}")

    @property
    def max_payload(self) -> int:
        """The largest payload of the queue."""
        return self.max_body + HEAD_BYTES

    def dispatcher(self, backoff: Backoff) -> DispatcherSettings:
        """The settings of the dispatcher that sends."""
        return DispatcherSettings(
            concurrency=self.concurrency or self.per_target * _PLACES_PER_TURN,
            max_retry=self.retry_limit,
            backoff=backoff,
            max_run_time=_LONGEST_CALL + _AROUND_A_CALL,
            drain_timeout=self.drain_timeout,
            keep_dropped=True,
        )
