"""Stage 5: one attempt as its callback sees it, and how a callback is called; the same in process and behind gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from workqueue.lease import Lost
from workqueue.options import no_meta
from workqueue.outcomes import Outcome

__all__ = ["Attempt", "Callback", "call", "in_thread"]

_T = TypeVar("_T")


def _no_limit(duration: timedelta) -> None:
    """Nothing bounds this attempt, so that there is nothing to extend."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a callback is told beside its key.

    Args:
        priority: as enqueued.
        payload: the newest that was enqueued with the key.
        meta: the newest values, name by name.
        attempts: which attempt this is, counted from 1; 0 where the caller does not say, as a Go dispatcher does not.
        queued_time: when this attempt's entry was queued; None behind gRPC, whose requests do not carry it.
        lost: set, from any thread, once the result will not be applied any more: stop then.
        extender: what `extend` calls.
    """

    priority: int = 0
    payload: bytes | None = None
    meta: Mapping[str, str] = field(default_factory=no_meta)
    attempts: int = 1
    queued_time: datetime | None = None
    lost: Lost = field(default_factory=Lost)
    extender: Callable[[timedelta], None] = field(default=_no_limit, repr=False, compare=False)

    def extend(self, duration: timedelta) -> None:
        """Allow this attempt to run for `duration` from now. Has no effect behind gRPC, where the caller decides."""
        self.extender(duration)


Callback = Callable[[str, Attempt], Awaitable[Outcome | None]] | Callable[[str, Attempt], Outcome | None]
"""What reconciles a key: a coroutine function, or a plain function, which is called in a thread of its own."""


async def call(callback: Callback, key: str, attempt: Attempt) -> object:
    """Call `callback` and return whatever it returns; cancelling this cancels a coroutine, but abandons a thread."""
    result: object = callback(key, attempt) if _is_async(callback) else await in_thread(callback, key, attempt)
    return await result if inspect.isawaitable(result) else result


def _is_async(callback: Callback) -> bool:
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__)


async def in_thread(function: Callable[..., _T], *arguments: object) -> _T:
    """Run a plain function in a daemon thread of its own, with this task's context variables.

    Not in an executor: its threads are joined at exit, so that one callback that never returns would keep the process
    from ending.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            tell = partial(done.set_result, context.run(function, *arguments))
        except StopIteration as error:  # a future refuses it
            tell = partial(done.set_exception, RuntimeError(f"the callback raised StopIteration({error.value!r})"))
        except BaseException as error:  # noqa: BLE001 - it is handed to the one who awaits
            tell = partial(done.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it the one who awaited
            loop.call_soon_threadsafe(_unless_done, done, tell)

    threading.Thread(target=run, name=f"callback-{getattr(function, '__name__', 'thread')}", daemon=True).start()
    return await done


def _unless_done(done: asyncio.Future[_T], tell: Callable[[], None]) -> None:
    if not done.done():  # it is, when the one who awaited was cancelled
        tell()
