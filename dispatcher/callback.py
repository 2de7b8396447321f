"""Stage 5: what a dispatcher calls for each key, and what the call is told about its attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from workqueue.interface import OwnedInProgressKey
from workqueue.lease import Lost
from workqueue.outcomes import Outcome

__all__ = ["AsyncCallback", "Attempt", "Callback", "RunTime"]


class RunTime(Protocol):
    """How long an attempt may still run, as its dispatcher has it."""

    @property
    def awaited(self) -> bool: ...
    def extend(self, duration: timedelta) -> None: ...
    def remaining(self) -> timedelta: ...


class Attempt:
    """What a callback may know of its attempt. It never changes, but for `lost`.

    `lost` is a thread-safe event: once set, the lease is gone and whatever the callback answers is ignored.
    """

    __slots__ = ("_owned", "_time")

    def __init__(self, owned: OwnedInProgressKey, time: RunTime) -> None:
        self._owned = owned
        self._time = time

    @property
    def key(self) -> str:
        """The key, once more."""
        return self._owned.key

    @property
    def priority(self) -> int:
        """The key's priority; higher starts first."""
        return self._owned.priority

    @property
    def payload(self) -> bytes | None:
        """The newest payload that was enqueued with the key."""
        return self._owned.payload

    @property
    def meta(self) -> Mapping[str, str]:
        """The small strings that travel with the key."""
        return self._owned.meta

    @property
    def attempts(self) -> int:
        """Which attempt this is, from 1."""
        return self._owned.attempts

    @property
    def queued_time(self) -> datetime:
        """When the key was queued for this attempt."""
        return self._owned.queued_time

    @property
    def lost(self) -> Lost:
        """Set once the lease is gone; a callback in a thread should look at it between steps."""
        return self._owned.lost

    def extend(self, duration: timedelta) -> None:
        """Let the callback run at least `duration` (> 0) from now, `max_run_time` notwithstanding. Thread-safe."""
        self._time.extend(duration)

    def remaining(self) -> timedelta:
        """How long the callback may still run before it is cancelled; never negative."""
        return self._time.remaining()

    @property
    def awaited(self) -> bool:
        """Whether the dispatcher asked the callback to end and still waits for it."""
        return self._time.awaited

    def __repr__(self) -> str:
        return f"Attempt({self.key!r}, attempts={self.attempts})"


AsyncCallback = Callable[[str, Attempt], Awaitable[Outcome | None]]
Callback = AsyncCallback | Callable[[str, Attempt], Outcome | None]
"""A reconciler: called with a key and its attempt. What it returns or raises decides what becomes of the key.

A coroutine function runs on the event loop; a plain function runs in a daemon thread.
"""
