"""For tests: an attempt made by hand, so that a reconciler is called as any function is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from workqueue.lease import Lost
from workqueue.options import Options

__all__ = ["MadeAttempt", "attempt"]


@dataclass
class MadeAttempt:
    """An `Attempt` that a test made with `attempt`. `extended` keeps what the reconciler asked of `extend`."""

    key: str
    priority: int
    payload: bytes | None
    meta: Mapping[str, str]
    attempts: int
    queued_time: datetime | None
    run_time: timedelta
    is_awaited: bool = False
    lost: Lost = field(default_factory=Lost)
    extended: list[timedelta] = field(default_factory=list)

    def extend(self, duration: timedelta) -> None:
        self.extended.append(duration)
        self.run_time = max(self.run_time, duration)

    def remaining(self) -> timedelta:
        return self.run_time


def attempt(
    key: str,
    options: Options = Options(),
    *,
    attempts: int = 1,
    payload: bytes | None = None,
    queued_time: datetime | None = None,
    run_time: timedelta = timedelta(hours=1),
) -> MadeAttempt:
    """What a test calls its reconciler with, such as the second try of a key: `attempts=2`.

    Args:
        key: what the attempt is about.
        options: what the key was enqueued with: its priority, payload and meta.
        attempts: which attempt it is, from 1.
        payload: instead of the one of `options`.
        queued_time: when the key was queued; by default now.
        run_time: what `remaining` says. It does not pass; a test sets it.
    """
    return MadeAttempt(
        key,
        options.priority,
        options.payload if payload is None else payload,
        options.meta,
        attempts,
        queued_time or datetime.now(UTC),
        run_time,
    )
