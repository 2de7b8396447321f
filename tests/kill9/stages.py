"""Points at which a process under test ends itself with SIGKILL: before or after the n-th step of a stage."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Awaitable
from typing import Any, TypeVar

from workqueue.optional import Leased, LeaseRequest
from workqueue.options import Options

STAGES = ("enqueue", "start", "call", "settle", "tell")
_SETTLES = {"complete", "requeue", "dead_letter", "release"}
_T = TypeVar("_T")


class KillPoint:
    """Where to end: `stage:before:3` = before the third step of that stage; `never` = not at all."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._reached: Counter[str] = Counter()

    def reach(self, stage: str, when: str) -> None:
        """The process is at such a point; it may not come back."""
        self._reached[f"{stage}:{when}"] += 1
        if self._text == f"{stage}:{when}:{self._reached[f'{stage}:{when}']}":
            os.kill(os.getpid(), signal.SIGKILL)

    async def around(self, stage: str, step: Awaitable[_T]) -> _T:
        """`step`, with a point before and one after it."""
        self.reach(stage, "before")
        result = await step
        self.reach(stage, "after")
        return result


class FatalQueue:
    """A queue whose user may not survive its steps; everything else is the queue's own."""

    def __init__(self, queue: Any, point: KillPoint) -> None:
        self._queue = queue
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    async def queue(self, key: str, options: Options) -> None:
        await self._point.around("enqueue", self._queue.queue(key, options))

    async def lease(self, request: LeaseRequest) -> Leased:
        leased = await self._point.around("start", self._queue.lease(request))
        return Leased([FatalKey(owned, self._point) for owned in leased.started], leased.recovered)


class FatalKey:
    """An owned key whose settle its owner may not survive."""

    def __init__(self, owned: Any, point: KillPoint) -> None:
        self._owned = owned
        self._point = point

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._owned, name)
        if name not in _SETTLES:
            return verb
        return lambda *args, **named: self._point.around("settle", verb(*args, **named))
