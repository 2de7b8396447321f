"""Stage 5: one attempt as its callback sees it, and how a callback is called; the same in process and behind gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeGuard, TypeVar

from workqueue.errors import InvalidSettingError
from workqueue.lease import Lost
from workqueue.outcomes import Outcome

__all__ = [
    "AsyncCallback",
    "Attempt",
    "Callback",
    "StillRunsError",
    "as_async",
    "call",
    "check_callback",
    "in_thread",
    "is_coroutine_function",
    "start_in_thread",
]

log = logging.getLogger(__name__)

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
        """Allow the callback at least `duration` (> 0) from now. Behind gRPC it does nothing: the caller decides.

        Raises:
            InvalidOptionsError: it is no timedelta.
        """

    def remaining(self) -> timedelta:
        """How long the callback may still run before it is cancelled; never negative."""

    @property
    def is_awaited(self) -> bool:
        """Whether the callback was asked to end, and whoever asked waits for its end, that of a thread included."""


AsyncCallback = Callable[[str, Any], Awaitable[Any]]
"""A callback that runs on the event loop; what it answers is checked when it has."""

Callback = Callable[[str, Attempt], Awaitable[Outcome | None]] | Callable[[str, Attempt], Outcome | None]
"""What reconciles a key: a coroutine function, or a plain function, which is called in a thread of its own."""


class StillRunsError(asyncio.CancelledError):
    """The call was given up while its thread still runs, so its key must not be settled."""


def check_callback(callback: object, *given: str, role: str = "a callback") -> None:
    """Refuse what cannot be called as a callback is: else every attempt would fail, and count.

    Args:
        callback: what is to be called for each key.
        given: names of what it is called with.
        role: what it is, for the error.

    Raises:
        InvalidSettingError: it cannot be called so, or would not answer.
    """
    how = f"{role} is called as ({', '.join(given)})"
    if not callable(callback):
        hint = "; give the function itself, without calling it" if inspect.isawaitable(callback) else ""
        raise InvalidSettingError(f"{how}, which a {type(callback).__name__} cannot be{hint}")
    name = getattr(callback, "__qualname__", type(callback).__name__)
    if inspect.isclass(callback):
        raise InvalidSettingError(f"{how} and answers; {name} is a class: give an instance of it, or a function")
    if any(map(_yields, (callback, type(callback).__call__))):
        raise InvalidSettingError(f"{how} and returns its answer; {name} has a yield")
    try:
        inspect.signature(callback).bind(*given)
    except TypeError as error:
        raise InvalidSettingError(f"{how}, which {name} cannot be: {error}") from None
    except ValueError:  # written in C: it does not say what it takes
        log.debug("%s does not say what it takes", name)


def _yields(function: object) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


async def call(callback: Callback, key: str, attempt: Attempt) -> Any:
    """Call `callback` and return whatever it returns; a plain function is called as `in_thread` does."""
    return await as_async(callback)(key, attempt)


def as_async(callback: Callback) -> AsyncCallback:
    """`callback` itself if it is a coroutine function, else one that calls it in a daemon thread."""
    return callback if is_coroutine_function(callback) else partial(_call_in_thread, callback)


async def _call_in_thread(function: Callable[..., Any], key: str, attempt: Attempt) -> Any:
    result = await in_thread(function, key, attempt, attempt=attempt)
    return await result if inspect.isawaitable(result) else result  # a lambda around a coroutine function


def is_coroutine_function(callback: Callback) -> TypeGuard[_CoroutineFunction]:
    """Whether calling `callback` only makes a coroutine: a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__)


async def in_thread(function: Callable[..., _T], *arguments: object, attempt: Attempt | None = None) -> _T:
    """Run a plain function as `start_in_thread` does, and wait for it.

    Args:
        function: what to run.
        arguments: what it is called with.
        attempt: the attempt that it is a part of. A cancellation waits for the thread as long as `attempt.is_awaited`.

    Raises:
        StillRunsError: this was cancelled, and the thread is abandoned.
    """
    answer = start_in_thread(function, *arguments)
    while not answer.done():
        try:
            await asyncio.wait((answer,))
        except asyncio.CancelledError:
            if attempt is None or not attempt.is_awaited:
                answer.cancel()
                raise StillRunsError from None
    return answer.result()


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
