"""Stage 5: the run of one callback: how far it is, until when it may run, and how it is asked to end.

TO_CALL  -> CALLING -> SETTLING   as usual
CALLING  -> ENDING -> SETTLING    it was asked to end, and does
ENDING   -> RUNAWAY               it was asked to end, and does not
TO_CALL  -> SETTLING              it was stopped before it was called
SETTLING -> UNSETTLED             a drain is over before the store has answered
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from enum import Enum, auto

from workqueue.clock import Clock, duration_us
from workqueue.interface import OwnedInProgressKey
from workqueue.outcomes import QueueKeys, RequeueAfter

__all__ = ["END_GRACE", "CallbackRun", "End", "Stage", "StillRunsError", "Why"]

END_GRACE = timedelta(seconds=30)
"""How long a cancelled callback may take to end before its lease is given up and it counts as a runaway."""

_END_GRACE_US = duration_us(END_GRACE)


class Stage(Enum):
    """How far a run is. Its task is cancelled only while the callback runs, so that no settle is cut short."""

    TO_CALL = auto()
    """Its task has not taken its first step."""
    CALLING = auto()
    """The callback runs."""
    ENDING = auto()
    """The callback runs, and was asked to end."""
    SETTLING = auto()
    """The callback has ended, or will not be called."""
    RUNAWAY = auto()
    """The callback did not end when it was asked to. Its lease is left to lapse, its answer is ignored."""
    UNSETTLED = auto()
    """The store did not answer in time. The lease is left to lapse."""


class Why(Enum):
    """Why the dispatcher asked a callback to end."""

    TIMED_OUT = "it exceeded max_run_time"
    LOST = "its lease was lost"
    SHUTDOWN = "the dispatcher is stopping"


class End(Enum):
    """How a run came to its end. Only after `ANSWERED` does it matter what the callback returned or raised."""

    ANSWERED = auto()
    TIMED_OUT = auto()
    CUT_SHORT = auto()
    """It ended because the process is stopping."""
    LOST = auto()
    """Its key is another owner's now."""
    LEFT = auto()
    """Its lease was given up, or must be because a thread of it runs on."""


class StillRunsError(asyncio.CancelledError):
    """The callback was given up while its thread still runs, so its key must not be settled."""


class CallbackRun:
    """The run of one callback, as its dispatcher sees it.

    `why` is set from `ENDING` on. `deadline_us` is the end of the run time, and from `ENDING` on the end of its grace.
    """

    __slots__ = ("_cancels", "_clock", "deadline_us", "owned", "stage", "task", "why")

    task: asyncio.Task[None]

    def __init__(self, owned: OwnedInProgressKey, clock: Clock, deadline_us: int) -> None:
        self.owned = owned
        self.stage = Stage.TO_CALL
        self.why: Why | None = None
        self.deadline_us = deadline_us
        self._clock = clock
        self._cancels = 0  # how often we cancelled its task

    def extend(self, duration: timedelta) -> None:
        if self.why is None:
            self.deadline_us = max(self.deadline_us, self._clock.steady_us() + duration_us(duration))

    def remaining(self) -> timedelta:
        if self.why is not None:
            return timedelta(0)
        return timedelta(microseconds=max(self.deadline_us - self._clock.steady_us(), 0))

    def stop(self, why: Why) -> None:
        """Ask the callback to end, or not to begin; the first reason stands."""
        if self.stage is Stage.CALLING:
            self.stage = Stage.ENDING
            self.deadline_us = self._clock.steady_us() + _END_GRACE_US
            self.cancel()
        elif self.stage is Stage.TO_CALL:  # its task must not be cancelled: then nobody would settle
            self.stage = Stage.SETTLING
        else:
            return
        self.why = why

    def cancel(self) -> None:
        """Cancel the callback, which runs."""
        self._cancels += 1
        self.task.cancel()

    def lose(self) -> None:
        """The lease is gone; called in the renewer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs any more
            self.task.get_loop().call_soon_threadsafe(self.stop, Why.LOST)

    def leave(self) -> None:
        """Give up waiting for the callback or for its settle, and leave the key to its lease."""
        self.stage = Stage.UNSETTLED if self.stage is Stage.SETTLING else Stage.RUNAWAY
        self.owned.abandon()

    @property
    def is_left(self) -> bool:
        """Whether the key was left to its lease."""
        return self.stage is Stage.RUNAWAY or self.stage is Stage.UNSETTLED

    @property
    def is_cancelled_by_others(self) -> bool:
        """Whether somebody else cancelled the task: the callback itself, or the end of the event loop."""
        return self.task.cancelling() > self._cancels

    def end(self, result: object) -> End:
        """How the run came to its end, once the callback has returned or raised `result`."""
        if self.is_left or isinstance(result, StillRunsError):
            return End.LEFT
        if self.owned.lost.is_set():
            return End.LOST
        if self.why is Why.TIMED_OUT:  # even if it answers: it did so only because it was cancelled
            return End.TIMED_OUT
        return End.CUT_SHORT if self._is_cut_short(result) else End.ANSWERED

    def _is_cut_short(self, result: object) -> bool:
        if self.why is Why.SHUTDOWN:
            return isinstance(result, BaseException) and not isinstance(result, RequeueAfter | QueueKeys)
        return isinstance(result, asyncio.CancelledError) and self.is_cancelled_by_others
