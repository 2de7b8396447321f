"""Stage 5: what a dispatcher calls for each key, and what the callback can read of its attempt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from dispatcher.running import CallbackRun
from workqueue.attempt import AsyncCallback, Attempt, Callback
from workqueue.lease import Lost
from workqueue.options import check_duration

__all__ = ["AsyncCallback", "Attempt", "Callback", "LeasedAttempt"]


class LeasedAttempt:
    """The `Attempt` of a dispatcher: it reads the lease that the dispatcher holds, so `lost` is set with the lease."""

    __slots__ = ("_owned", "_run")

    def __init__(self, run: CallbackRun) -> None:
        self._owned = run.owned
        self._run = run

    @property
    def key(self) -> str:
        return self._owned.key

    @property
    def priority(self) -> int:
        return self._owned.priority

    @property
    def payload(self) -> bytes | None:
        return self._owned.payload

    @property
    def meta(self) -> Mapping[str, str]:
        return self._owned.meta

    @property
    def attempts(self) -> int:
        return self._owned.attempts

    @property
    def queued_time(self) -> datetime:
        return self._owned.queued_time

    @property
    def lost(self) -> Lost:
        return self._owned.lost

    def extend(self, duration: timedelta) -> None:
        check_duration("a duration", duration)
        self._run.extend(duration)

    def remaining(self) -> timedelta:
        return self._run.remaining()

    @property
    def is_awaited(self) -> bool:
        return self._run.stage == "ending"

    def __repr__(self) -> str:
        return f"Attempt({self.key!r}, attempts={self.attempts})"
