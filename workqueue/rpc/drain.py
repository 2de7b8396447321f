"""A reconciler that is being stopped answers for its callbacks, so that no key pays for a restart.

A caller whose connection breaks counts a failed attempt, and a key that is often interrupted would be dead-lettered for
nothing. An answer that asks for a requeue costs no attempt. The numbers are those of the public Go implementation.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from workqueue.exits import CallingTask
from workqueue.options import check_time
from workqueue.outcomes import RequeueAfter
from workqueue.safe_text import shown_duration

__all__ = ["Drain", "DrainTimes"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DrainTimes:
    """How a drain goes.

    Args:
        patience: how long callbacks that run may go on, before they are cancelled and answered for.
        delay: their keys, and those that still come in, are requeued after this long at least,
        jitter: and a random part of this more, so that they do not all come back at once.

    Raises:
        InvalidSettingError: one is no timedelta, or less than zero.
    """

    patience: timedelta = timedelta(seconds=3)
    delay: timedelta = timedelta(seconds=15)
    jitter: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        for name in ("patience", "delay", "jitter"):
            check_time(name, getattr(self, name))


class Drain(Generic[_T]):
    """Runs attempts until it is drained.

    Args:
        times: how the drain goes.
        requeue: makes the answer for an attempt that was not allowed to finish, or to begin.
        rand: returns a float in [0, 1).
    """

    def __init__(
        self,
        times: DrainTimes,
        requeue: Callable[[RequeueAfter], _T],
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._times = times
        self._requeue = requeue
        self._rand = rand
        self._running: dict[asyncio.Future[_T], asyncio.Task[None]] = {}
        self._draining = False

    def __len__(self) -> int:
        """How many attempts run."""
        return len(self._running)

    async def run(self, attempt: Coroutine[Any, Any, _T], abandoned: Callable[[], None]) -> _T:
        """Run `attempt` and return its answer, or a requeue if draining cuts it short.

        Where its answer has become useless, because this was cancelled or answered for, `abandoned` is called and the
        attempt is cancelled, without waiting for either.
        """
        if self._draining:
            attempt.close()
            return self._come_back()
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        task = CallingTask(_run(attempt, answer), loop=asyncio.get_running_loop())
        task.add_done_callback(lambda ended: _pass_on(ended, answer))
        task.add_done_callback(lambda _: attempt.close())  # cancelled before its first step, it has not begun
        self._running[answer] = task
        try:
            return await answer
        finally:
            del self._running[answer]
            if not task.done():
                abandoned()
                task.cancel()

    async def drain(self) -> None:
        """Let no attempt begin any more, and return once all are answered: their own way, or after `patience` ours."""
        self._draining = True
        if self._running:
            log.info("draining: %d attempts get %s to finish", len(self._running), shown_duration(self._times.patience))
            await asyncio.wait(self._running, timeout=self._times.patience.total_seconds())
        self.hurry()

    def hurry(self) -> None:
        """Let no attempt begin any more, and answer at once for those that run."""
        self._draining = True
        for answer in self._running:
            if not answer.done():
                answer.set_result(self._come_back())

    def _come_back(self) -> _T:
        return self._requeue(RequeueAfter(self._times.delay + self._times.jitter * self._rand()))


async def _run(attempt: Coroutine[Any, Any, _T], answer: asyncio.Future[_T]) -> None:
    """Answer from within the task: one that a callback cancelled as its last act counts as cancelled all the same."""
    given = await attempt
    if not answer.done():
        answer.set_result(given)


def _pass_on(ended: asyncio.Task[None], answer: asyncio.Future[_T]) -> None:
    """Without an answer of its own, the attempt was cancelled or has failed."""
    error = None if ended.cancelled() else ended.exception()
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.cancel()
