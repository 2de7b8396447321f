"""Stage 5: the run of one callback: how far it is, until when it may run, and how it is asked to end.

to call  -> calling -> settling   as usual
calling  -> ending -> settling    it was asked to end, and does
ending   -> runaway               it was asked to end, and does not
to call  -> settling              it was stopped before it was called
settling -> unsettled             a drain is over before the store has answered
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Literal

from workqueue.attempt import StillRunsError
from workqueue.clock import Clock, duration_us
from workqueue.interface import OwnedInProgressKey
from workqueue.outcomes import QueueKeys, RequeueAfter

__all__ = ["END_GRACE", "CallbackRun", "End", "Stage", "Why"]

END_GRACE = timedelta(seconds=30)
"""How long a cancelled callback may take to end before its lease is given up and it counts as a runaway."""

_END_GRACE_US = duration_us(END_GRACE)


Stage = Literal["to call", "calling", "ending", "settling", "runaway", "unsettled"]
"""How far a run is. Its task is cancelled only while the callback runs, so that no settle is cut short.

- `to call`: its task has not taken its first step.
- `calling`: the callback runs.
- `ending`: the callback runs, and was asked to end.
- `settling`: the callback has ended, or will not be called.
- `runaway`: the callback did not end when it was asked to. Its lease is left to lapse, its answer is ignored.
- `unsettled`: the store did not answer in time. The lease is left to lapse.
"""

Why = Literal["it exceeded max_run_time", "its lease was lost", "the dispatcher is stopping"]
"""Why the dispatcher asked a callback to end."""

End = Literal["answered", "timed out", "cut short", "lost", "left"]
"""How a run came to its end. Only what `answered` is judged by what the callback returned or raised.

- `cut short`: it ended because the process is stopping.
- `lost`: its key is another owner's now.
- `left`: its lease was given up, or must be because a thread of it runs on.
"""


class CallbackRun:
    """The run of one callback, as its dispatcher sees it.

    `why` is set from `ending` on. `deadline_us` is the end of the run time, and from `ending` on the end of its grace.
    """

    __slots__ = ("_cancels", "_clock", "deadline_us", "owned", "stage", "task", "why")

    task: asyncio.Task[None]

    def __init__(self, owned: OwnedInProgressKey, clock: Clock, deadline_us: int) -> None:
        self.owned = owned
        self.stage: Stage = "to call"
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
        if self.stage == "calling":
            self.stage = "ending"
            self.deadline_us = self._clock.steady_us() + _END_GRACE_US
            self.cancel()
        elif self.stage == "to call":  # its task must not be cancelled: then nobody would settle
            self.stage = "settling"
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
            self.task.get_loop().call_soon_threadsafe(self.stop, "its lease was lost")

    def leave(self) -> None:
        """Give up waiting for the callback or for its settle, and leave the key to its lease."""
        self.stage = "unsettled" if self.stage == "settling" else "runaway"
        self.owned.abandon()

    @property
    def is_left(self) -> bool:
        """Whether the key was left to its lease."""
        return self.stage == "runaway" or self.stage == "unsettled"

    @property
    def is_cancelled_by_others(self) -> bool:
        """Whether somebody else cancelled the task: the callback itself, or the end of the event loop."""
        return self.task.cancelling() > self._cancels

    def end(self, result: object) -> End:
        """How the run came to its end, once the callback has returned or raised `result`."""
        if self.why is None and not isinstance(result, asyncio.CancelledError):  # nearly always
            return "lost" if self.owned.lost.is_set() else "answered"
        if self.is_left or isinstance(result, StillRunsError):
            return "left"
        if self.owned.lost.is_set():
            return "lost"
        if self.why == "it exceeded max_run_time":  # even if it answers: it did so only because it was cancelled
            return "timed out"
        return "cut short" if self._is_cut_short(result) else "answered"

    def _is_cut_short(self, result: object) -> bool:
        if self.why is not None:  # the dispatcher is stopping
            return isinstance(result, BaseException) and not isinstance(result, RequeueAfter | QueueKeys)
        return self.is_cancelled_by_others
