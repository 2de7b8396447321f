"""Stage 5: plain functions as callbacks, in daemon threads of our own.

Not a `ThreadPoolExecutor`: the interpreter joins its threads at exit, so one callback that hangs would keep a drained
process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from dispatcher.callback import AsyncCallback, Attempt, Callback

__all__ = ["CallbackThreads", "ThreadRunsOnError", "as_async"]

_IDLE_SECONDS = 10.0
_Answer = tuple[Any, BaseException | None]


def as_async(callback: Callback) -> AsyncCallback:
    """`callback` itself if it is a coroutine function, else one that calls it in a daemon thread."""
    if iscoroutinefunction(callback) or iscoroutinefunction(getattr(callback, "__call__", None)):  # noqa: B004
        return callback  # type: ignore[return-value]
    return CallbackThreads(callback)


class ThreadRunsOnError(asyncio.CancelledError):
    """The call was given up while its thread still runs, so its key must not be settled."""


class CallbackThreads:
    """A plain function as a coroutine function; one thread for each call under way, kept for the next one.

    A thread cannot be cancelled: a call that the dispatcher cancels ends when the function does.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._calls: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._idle = 0

    async def __call__(self, key: str, attempt: Attempt) -> Any:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()
        run = partial(copy_context().run, self._function, key, attempt)
        self._submit(lambda: _deliver(loop, answer, _answer(run)))
        result, error = await _ended(answer, attempt)
        if error is not None:
            raise error
        return await result if isawaitable(result) else result  # a lambda around a coroutine function

    def _submit(self, call: Callable[[], None]) -> None:
        with self._changed:
            self._calls.append(call)
            if self._idle >= len(self._calls):
                self._changed.notify()
                return
        threading.Thread(target=self._serve, name="dispatcher-callback", daemon=True).start()

    def _serve(self) -> None:
        while (call := self._next()) is not None:
            call()

    def _next(self) -> Callable[[], None] | None:
        """The next call; None once there was none for a while, so that a round that is over leaves no thread behind."""
        with self._changed:
            while not self._calls:
                self._idle += 1
                woken = self._changed.wait(_IDLE_SECONDS)
                self._idle -= 1
                if not woken and not self._calls:
                    return None
            return self._calls.popleft()


async def _ended(answer: asyncio.Future[_Answer], attempt: Attempt) -> _Answer:
    while not answer.done():
        try:
            await asyncio.wait((answer,))
        except asyncio.CancelledError:
            if not attempt.awaited:
                raise ThreadRunsOnError from None
    return answer.result()


def _answer(run: Callable[[], Any]) -> _Answer:
    try:
        return run(), None
    except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited; this thread lives on
        return None, error


def _deliver(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[_Answer], value: _Answer) -> None:
    def settle() -> None:
        if not answer.done():
            answer.set_result(value)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle)
