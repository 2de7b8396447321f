"""Ours as in `ours`, with a note at every station of a key: functions are wrapped here, from outside.

A note costs some five microseconds, so a traced key takes about a tenth longer.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders import ours
from benchmarks.contenders.notes import Kind, Notes
from benchmarks.contenders.ours import ASYNC, bulk, opened, work
from dispatcher import Attempt
from dispatcher.attempt import Attempts
from dispatcher.blocked import LoopWatch
from dispatcher.overdue import RunTimes
from workqueue.backends.redis.backend import RedisQueue
from workqueue.backends.redis.link import Link
from workqueue.backends.redis.wakeups import Wakeups
from workqueue.fallbacks import FullQueue
from workqueue.lease import LeaseRenewer

__all__ = ["ASYNC", "bulk", "one", "opened", "work"]

Function = Callable[..., Any]

NOTES = Notes(Path(os.environ["BENCHMARK_NOTES"]) / str(os.getpid()), int(os.environ["BENCHMARK_REDIS_PID"]))
_OF_TURN = {"enqueue": (Kind.ENQUEUE_SENT, Kind.ENQUEUED), "lease": (Kind.LEASE_SENT, Kind.LEASE_ANSWERED)}
_OF_OTHERS = Kind.OTHER_SENT, Kind.OTHER_ANSWERED


async def one(queue: FullQueue, number: int) -> None:
    NOTES.add_redis()
    NOTES.add(Kind.CALLED, number)
    await ours.one(queue, number)


def wrap(owner: Any, name: str, wrapper: Callable[[Function], Function]) -> None:
    setattr(owner, name, wrapper(getattr(owner, name)))


def started(noop: Function) -> Function:
    async def wrapped(key: str, attempt: Attempt) -> None:
        NOTES.add(Kind.STARTED, int(key[4:]))
        await noop(key, attempt)
        NOTES.add_redis()

    return wrapped


def begun(kind: Kind) -> Callable[[Function], Function]:
    """A note when it is called."""

    def wrapper(function: Function) -> Function:
        def wrapped(*arguments: Any) -> Any:
            NOTES.add(kind)
            return function(*arguments)

        return wrapped

    return wrapper


def done(kind: Kind) -> Callable[[Function], Function]:
    """A note when it has returned, with how long it took."""

    def wrapper(function: Function) -> Function:
        def wrapped(*arguments: Any) -> Any:
            began = time.monotonic_ns()
            result = function(*arguments)
            NOTES.add(kind, time.monotonic_ns() - began)
            return result

        return wrapped

    return wrapper


def entered(kind: Kind) -> Callable[[Function], Function]:
    """A note at the first step of the task that awaits it."""

    def wrapper(function: Function) -> Function:
        async def wrapped(*arguments: Any) -> Any:
            NOTES.add(kind)
            return await function(*arguments)

        return wrapped

    return wrapper


def awaited(kind: Kind) -> Callable[[Function], Function]:
    """A note when it has been awaited."""

    def wrapper(function: Function) -> Function:
        async def wrapped(*arguments: Any) -> Any:
            result = await function(*arguments)
            NOTES.add(kind)
            return result

        return wrapped

    return wrapper


def sent(send: Function) -> Function:
    """A note when a turn was handed to the socket, and one when it is answered."""

    def wrapped(link: Link, commands: Any, after: Any, take: Function) -> None:
        names = {command.script.name for command in commands}
        at_sent, at_answered = next((kinds for name, kinds in _OF_TURN.items() if name in names), _OF_OTHERS)
        send(link, commands, after, begun(at_answered)(take))
        NOTES.add(at_sent)

    return wrapped


def woken(take: Function) -> Function:
    """A note when a wake-up arrives; not when another reply does, as to a PING."""

    def wrapped(wakeups: Wakeups, message: Any) -> None:
        if isinstance(message, list) and message[0] == b"message":
            NOTES.add(Kind.WOKEN)
        take(wakeups, message)

    return wrapped


class Collections:
    """A note when the garbage collector has run."""

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.monotonic_ns()
        else:
            NOTES.add(Kind(Kind.GC_0 + info["generation"]), time.monotonic_ns() - self._began)


wrap(ours, "noop", started)
wrap(Link, "send", sent)
wrap(Wakeups, "_take", woken)
wrap(RedisQueue, "wait", awaited(Kind.WAIT_RETURNED))
wrap(RedisQueue, "lease", awaited(Kind.LEASED))
wrap(Attempts, "_attempt", entered(Kind.STEPPED))
wrap(LeaseRenewer, "tick", done(Kind.RENEWER))
wrap(LoopWatch, "look", done(Kind.LOOP_WATCH))
wrap(RunTimes, "_look", done(Kind.RUN_TIMES))
gc.callbacks.append(Collections())
