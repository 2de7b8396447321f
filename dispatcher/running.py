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
from typing import Any, Literal

from dispatcher.settings import DispatcherSettings
from workqueue.attempt import StillRunsError
from workqueue.clock import Clock, duration_us
from workqueue.interface import OwnedInProgressKey
from workqueue.outcomes import QueueKeys, RequeueAfter

__all__ = ["END_GRACE", "AttemptTask", "CallbackRun", "End", "Stage", "Why"]

END_GRACE = timedelta(seconds=30)
"""How long a cancelled callback may take to end before its lease is given up and it counts as a runaway."""

_END_GRACE_US = duration_us(END_GRACE)
_NEVER_US = 2**63


Stage = Literal["to call", "calling", "ending", "settling", "runaway", "unsettled"]
"""How far a run is. Its task is cancelled only while the callback runs, so that no settle is cut short.

- `to call`: its task has not taken its first step.
- `calling`: the callback runs.
- `ending`: the callback runs, and was asked to end.
- `settling`: the callback has ended, or will not be called.
- `runaway`: the callback did not end when it was asked to. Its lease is left to lapse, its answer is ignored.
- `unsettled`: the store did not answer in time. The lease is left to lapse.
"""

Why = Literal[
    "it exceeded max_run_time",
    "the deadline of its key has passed",
    "its lease was lost",
    "the dispatcher is stopping",
    "it is not to be called",
]
"""Why the dispatcher asked a callback to end, or not to begin."""

End = Literal["answered", "timed out", "expired", "cancelled", "cut short", "lost", "left"]
"""How a run came to its end. Only what `answered` is judged by what the callback returned or raised.

- `timed out`: its run time was over; `expired`: the deadline of its key has passed.
- `cancelled`: its task was cancelled by something in the callback, such as a deadline of its own.
- `cut short`: it ended because the dispatcher is stopping, or the event loop is ending.
- `lost`: its key is another owner's now.
- `left`: its lease was given up, or must be because a thread of it runs on.
"""


class AttemptTask(asyncio.Task[None]):
    """The task of one attempt, which others can cancel only while its callback runs.

    A deadline that a callback forgot fires while its key is being settled, or later. A settle that it cut short would
    leave the key to its lease, and its work would be done again. Only the end of the event loop cuts a settle short.
    """

    __slots__ = ("run",)

    run: CallbackRun | None

    @property
    def is_calling(self) -> bool:
        """Whether the callback runs, for `exits_contained`."""
        return self.run is not None and self.run.is_calling

    def cancel(self, msg: object = None) -> bool:
        if self.run is None or self.run.is_calling:
            return super().cancel(msg)
        if not self.done():  # whether the loop ends shows once all of its tasks have been cancelled
            self.get_loop().call_soon(self._cancel_at_the_end)
        return False

    def _cancel_at_the_end(self) -> None:
        if self.run is not None and self.run.is_torn_down and not self.done():
            super().cancel()

    def lose(self) -> None:
        """The lease is gone: stop the run, if it is not over; called in the renewer's thread."""
        run = self.run
        if run is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing runs any more
                self.get_loop().call_soon_threadsafe(run.stop, "its lease was lost")


class CallbackRun:
    """The run of one callback, as its dispatcher sees it.

    `why` is set from `ending` on. `deadline_us` is the end of the run time, and from `ending` on the end of its grace.
    `sent` is how many calls the target had answered when this one began; `lost` is that of the key's handle. `owner` is
    the task of the round or loop.

    Args:
        owned: the key.
        clock: judges how long it runs.
        settings: those that hold for this key.
        deadline_us: until when it may run, unless it asks for more.
    """

    __slots__ = (
        "_cancels",
        "_clock",
        "_expires_us",
        "deadline_us",
        "lost",
        "owned",
        "owner",
        "sent",
        "settings",
        "stage",
        "task",
        "why",
    )

    task: AttemptTask
    owner: asyncio.Task[Any]
    sent: int

    def __init__(self, owned: OwnedInProgressKey, clock: Clock, settings: DispatcherSettings, deadline_us: int) -> None:
        self.owned = owned
        self.lost = owned.lost
        self.settings = settings
        self.stage: Stage = "to call"
        self.why: Why | None = None
        self.deadline_us = deadline_us
        self._clock = clock
        self._expires_us = _NEVER_US
        self._cancels = 0  # how often we cancelled its task

    def begin(self, task: AttemptTask) -> None:
        """Go on in `task`, which others may cancel while the callback runs; whose lease is lost, stops."""
        self.task, task.run = task, self
        self.lost.subscribe(task.lose)

    def go_on(self, task: AttemptTask) -> None:
        """Settle in `task`: the one in which it began has ended."""
        self.forget()
        self.task, task.run = task, self

    def forget(self) -> None:
        """Part it from its task, so that nothing is left for the garbage collector, a dozen objects a key."""
        self.task.run = None

    def expire_at(self, steady_us: int) -> None:
        """Let the run end at that time at the latest, however long it may run: then the key itself expires."""
        self._expires_us = steady_us
        self.deadline_us = min(self.deadline_us, steady_us)

    def extend(self, duration: timedelta) -> None:
        if self.why is None:
            asked_us = max(self.deadline_us, self._clock.steady_us() + duration_us(duration))
            self.deadline_us = min(asked_us, self._expires_us)

    def remaining(self) -> timedelta:
        if self.why is not None:
            return timedelta(0)
        return timedelta(microseconds=max(self.deadline_us - self._clock.steady_us(), 0))

    def time_out(self) -> None:
        """Ask the callback to end, since `deadline_us` has passed."""
        expired = self.deadline_us >= self._expires_us
        self.stop("the deadline of its key has passed" if expired else "it exceeded max_run_time")

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

    def leave(self) -> None:
        """Give up waiting for the callback or for its settle, and leave the key to its lease."""
        self.stage = "unsettled" if self.stage == "settling" else "runaway"
        self.owned.abandon()

    @property
    def is_left(self) -> bool:
        """Whether the key was left to its lease."""
        return self.stage == "runaway" or self.stage == "unsettled"

    @property
    def is_calling(self) -> bool:
        """Whether the callback runs."""
        return self.stage == "calling" or self.stage == "ending" or self.stage == "runaway"

    @property
    def is_cancelled_by_others(self) -> bool:
        """Whether somebody else cancelled the task: the callback itself, or the end of the event loop.

        Or whether a cancellation, of whomever, is still to be delivered. Before Python 3.13 `uncancel` takes none
        back, it only counts one less; the first await of the settle would get it.
        """
        task: Any = self.task
        return bool(task.cancelling() > self._cancels or task._must_cancel)

    @property
    def is_torn_down(self) -> bool:
        """Whether the event loop is ending. Then it cancels every task, also the owner, which nobody else does."""
        return self.owner.done() or self.owner.cancelling() > 0

    def end(self, result: object) -> End:
        """How the run came to its end, once the callback has returned or raised `result`."""
        if self.why is None and not isinstance(result, asyncio.CancelledError):  # nearly always
            return "lost" if self.lost.is_set() else "answered"
        if self.is_left or isinstance(result, StillRunsError):
            return "left"
        if self.lost.is_set():
            return "lost"
        if self.why == "it exceeded max_run_time":  # even if it answers: it did so only because it was cancelled
            return "timed out"
        if self.why == "the deadline of its key has passed":
            return "expired"
        if self.why is not None:  # the dispatcher is stopping
            has_ended_by_it = isinstance(result, BaseException) and not isinstance(result, RequeueAfter | QueueKeys)
            return "cut short" if has_ended_by_it else "answered"
        if not self.is_cancelled_by_others:
            return "answered"
        return "cut short" if self.is_torn_down else "cancelled"
