"""What a callback may answer beside None. Each may be returned or raised; none of them is a failure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from workqueue.errors import InvalidOptionsError
from workqueue.key import validate_key
from workqueue.options import Options, check_duration

__all__ = ["MAX_FLOOR", "Outcome", "QueueKey", "QueueKeys", "RequeueAfter", "RequeueNotBefore"]

MAX_FLOOR = timedelta(hours=1)
"""A floor cannot be undercut by events, so an unbounded one would starve its key."""


class RequeueAfter(Exception):
    """Run this key again after `delay` plus a random part of `jitter`; attempts start at 0, events may pull it forward.

    Args:
        delay: more than zero.
        jitter: spreads keys that would come due together: uniform in [0, jitter).

    Raises:
        InvalidOptionsError: `delay` is not positive, `jitter` is negative, or one of them is no timedelta.
    """

    floor = False

    def __init__(self, delay: timedelta, jitter: timedelta = timedelta(0)) -> None:
        check_duration("a delay", delay)
        check_duration("a jitter", jitter)
        if delay <= timedelta(0):
            raise InvalidOptionsError(f"a delay is more than zero, not {delay}")
        if jitter < timedelta(0):
            raise InvalidOptionsError(f"a jitter is not negative, as {jitter} is")
        super().__init__(delay, jitter)
        self.delay = delay
        self.jitter = jitter

    def __eq__(self, other: object) -> bool:
        """Whether both ask for the same, so that a test can compare what a callback returned."""
        if type(self) is not type(other) or not isinstance(other, RequeueAfter):
            return NotImplemented
        return (self.delay, self.jitter) == (other.delay, other.jitter)

    def __hash__(self) -> int:
        return hash((self.delay, self.jitter))

    def __repr__(self) -> str:
        jitter = f", jitter={self.jitter!r}" if self.jitter else ""
        return f"{type(self).__name__}({self.delay!r}{jitter})"

    def __reduce__(self) -> tuple[type[RequeueAfter], tuple[timedelta, timedelta]]:
        """What pickle needs: a pool of processes hands outcomes back."""
        return type(self), (self.delay, self.jitter)

    def __str__(self) -> str:
        return f"requeue after {self.delay}"  # made when it is asked for: many keys are requeued, few are logged

    def next_delay(self) -> timedelta:
        """The delay to requeue with, jitter included."""
        return self.delay + self.jitter * random.random() if self.jitter else self.delay


class RequeueNotBefore(RequeueAfter):
    """As `RequeueAfter`, but no event can pull it forward. The delay is capped at one hour."""

    floor = True

    def next_delay(self) -> timedelta:
        """The delay to requeue with, jitter included, at most one hour."""
        return min(super().next_delay(), MAX_FLOOR)


@dataclass(frozen=True, slots=True)
class QueueKey:
    """One key that a finished attempt asks for.

    Args:
        key: the key to queue.
        priority: as in `Options`.
        delay: not before this long from now; None or zero = at once.
        payload: as in `Options`.

    Raises:
        InvalidKeyError, InvalidOptionsError: it could not be queued as it is.
    """

    key: str
    priority: int = 0
    delay: timedelta | None = None
    payload: bytes | None = None

    def __post_init__(self) -> None:
        validate_key(self.key)
        Options(priority=self.priority, payload=self.payload)
        if self.delay is None:
            return
        check_duration("a delay", self.delay)
        if self.delay < timedelta(0):
            raise InvalidOptionsError(f"a delay is not negative, as {self.delay} is")


class QueueKeys(Exception):
    """Queue these keys, and complete the asking key only once all of them are stored.

    Raises:
        InvalidOptionsError: one of them is no `QueueKey`.
    """

    def __init__(self, *keys: QueueKey) -> None:
        for key in keys:
            if not isinstance(key, QueueKey):
                raise InvalidOptionsError(f"QueueKeys takes each as a QueueKey, such as QueueKey('a'), not {key!r}")
        super().__init__(f"queue {len(keys)} keys")
        self.keys = keys

    def __eq__(self, other: object) -> bool:
        """Whether both ask for the same keys in the same order, so that a test can compare what a callback returned."""
        return isinstance(other, QueueKeys) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(self.keys)

    def __repr__(self) -> str:
        return f"QueueKeys({', '.join(map(repr, self.keys))})"

    def __reduce__(self) -> tuple[type[QueueKeys], tuple[QueueKey, ...]]:
        return type(self), self.keys


Outcome = RequeueAfter | QueueKeys
"""What a callback may return or raise on purpose (`RequeueNotBefore` is a `RequeueAfter`)."""
