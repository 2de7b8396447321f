"""Stage 5: one callback under way: until when it may run, and how it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from enum import Enum

from workqueue.clock import Clock, duration_us

__all__ = ["END_GRACE", "Phase", "Running", "Why"]

END_GRACE = timedelta(seconds=30)
"""How long a cancelled callback may take to end before its lease is given up and it counts as a runaway."""

_END_GRACE_US = duration_us(END_GRACE)


class Why(Enum):
    """Why the dispatcher asked a callback to end."""

    TIMED_OUT = "it exceeded max_run_time"
    LOST = "its lease was lost"
    SHUTDOWN = "the dispatcher is stopping"


class Phase(Enum):
    """How far an attempt is; its task is cancelled only while `CALLING`."""

    TO_CALL = 0
    CALLING = 1
    SETTLING = 2


class Running:
    """One attempt's callback, as its dispatcher sees it.

    `abandoned`: its lease was given up, its answer will be ignored. `runaway`: and its callback would not end.
    `cancels`: how often we cancelled its task.
    """

    __slots__ = ("abandoned", "cancels", "clock", "deadline_us", "phase", "runaway", "task", "why")

    task: asyncio.Task[None]

    def __init__(self, clock: Clock, deadline_us: int) -> None:
        self.clock = clock
        self.deadline_us = deadline_us
        self.phase = Phase.TO_CALL
        self.why: Why | None = None
        self.abandoned = False
        self.runaway = False
        self.cancels = 0

    @property
    def awaited(self) -> bool:
        return self.why is not None and not self.abandoned

    def extend(self, duration: timedelta) -> None:
        if self.why is None:
            self.deadline_us = max(self.deadline_us, self.clock.steady_us() + duration_us(duration))

    def remaining(self) -> timedelta:
        if self.why is not None:  # then `deadline_us` is the end of its grace
            return timedelta(0)
        return timedelta(microseconds=max(self.deadline_us - self.clock.steady_us(), 0))

    def stop(self, why: Why) -> None:
        """Ask the callback to end, or not to begin; the first reason stands."""
        if self.why is None and self.phase is not Phase.SETTLING:
            self.why = why
            self.deadline_us = self.clock.steady_us() + _END_GRACE_US
            self.cancel()

    def cancel(self) -> None:
        """Cancel the callback if it is being called.

        A task that has not begun must not be cancelled: its first step would never run, nor would the settle.
        """
        if self.phase is Phase.CALLING:
            self.cancels += 1
            self.task.cancel()

    def lose(self) -> None:
        """The lease is gone; called in the renewer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs any more
            self.task.get_loop().call_soon_threadsafe(self.stop, Why.LOST)

    @property
    def cancelled_by_others(self) -> bool:
        """Whether somebody else cancelled the task: the callback itself, or the end of the event loop."""
        return self.task.cancelling() > self.cancels
