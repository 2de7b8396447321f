"""Stage 5: one attempt as its callback sees it, and how a callback is called; the same in process and behind gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeGuard, TypeVar

from workqueue.lease import Lost
from workqueue.outcomes import Outcome

__all__ = ["Attempt", "Callback", "call", "in_thread", "is_coroutine_function", "start_in_thread"]

_T = TypeVar("_T")
_CoroutineFunction = Callable[["str", "Attempt"], Awaitable[Outcome | None]]


class Attempt(Protocol):
    """What a callback learns of its attempt. A dispatcher has one kind, a reconciler behind gRPC another.

    `lost` is set, from any thread, once the answer will be ignored: stop then.
    """

    @property
    def key(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def payload(self) -> bytes | None:
        """The newest payload that was enqueued with the key."""

    @property
    def meta(self) -> Mapping[str, str]:
        """The small strings that travel with the key; the newest, name by name."""

    @property
    def attempts(self) -> int:
        """Which attempt this is, from 1; 0 where the caller does not say, as a Go dispatcher does not."""

    @property
    def queued_time(self) -> datetime | None:
        """When the key was queued for this attempt; None behind gRPC, whose requests do not carry it."""

    @property
    def lost(self) -> Lost: ...

    def extend(self, duration: timedelta) -> None:
        """Allow the callback at least `duration` (> 0) from now. Behind gRPC it does nothing: the caller decides."""

    def remaining(self) -> timedelta:
        """How long the callback may still run before it is cancelled; never negative."""


Callback = Callable[[str, Attempt], Awaitable[Outcome | None]] | Callable[[str, Attempt], Outcome | None]
"""What reconciles a key: a coroutine function, or a plain function, which is called in a thread of its own."""


async def call(callback: Callback, key: str, attempt: Attempt) -> object:
    """Call `callback` and return whatever it returns; cancelling this cancels a coroutine, but abandons a thread."""
    if is_coroutine_function(callback):
        return await callback(key, attempt)
    result: object = await in_thread(callback, key, attempt)
    return await result if inspect.isawaitable(result) else result


def is_coroutine_function(callback: Callback) -> TypeGuard[_CoroutineFunction]:
    """Whether calling `callback` only makes a coroutine: a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__)


async def in_thread(function: Callable[..., _T], *arguments: object) -> _T:
    """Run a plain function as `start_in_thread` does, and wait for it; cancelling this abandons the thread."""
    return await start_in_thread(function, *arguments)


def start_in_thread(function: Callable[..., _T], *arguments: object) -> asyncio.Future[_T]:
    """Run a plain function in a daemon thread of its own, with this task's context variables.

    Not in an executor: its threads are joined at exit, so that one callback that never returns would keep the process
    from ending.

    Returns:
        What it will return or raise. Cancelling this abandons the thread.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            answer = partial(done.set_result, context.run(function, *arguments))
        except StopIteration as error:  # a future refuses it
            answer = partial(done.set_exception, RuntimeError(f"the callback raised StopIteration({error.value!r})"))
        except BaseException as error:  # noqa: BLE001 - it is handed to the one who awaits
            answer = partial(done.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it the one who awaited
            loop.call_soon_threadsafe(_unless_done, done, answer)

    threading.Thread(target=run, name=f"callback-{getattr(function, '__name__', 'thread')}", daemon=True).start()
    return done


def _unless_done(done: asyncio.Future[_T], answer: Callable[[], None]) -> None:
    if not done.done():  # it is, when the one who awaited was cancelled
        answer()
