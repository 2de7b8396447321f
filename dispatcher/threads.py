"""Stage 5: plain functions as callbacks: in daemon threads, which nobody can cancel, so that we wait for their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from dispatcher.callback import AsyncCallback, Callback, LeasedAttempt
from dispatcher.running import StillRunsError
from workqueue.attempt import is_coroutine_function, start_in_thread

__all__ = ["CallbackThreads", "as_async"]


def as_async(callback: Callback) -> AsyncCallback:
    """`callback` itself if it is a coroutine function, else one that calls it in a daemon thread."""
    return callback if is_coroutine_function(callback) else CallbackThreads(callback)


class CallbackThreads:
    """A plain function as a coroutine function. A call that the dispatcher cancels ends when the function does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    async def __call__(self, key: str, attempt: LeasedAttempt) -> Any:
        answer = start_in_thread(self._function, key, attempt)
        while not answer.done():
            try:
                await asyncio.wait((answer,))
            except asyncio.CancelledError:
                if not attempt.is_awaited:
                    answer.cancel()
                    raise StillRunsError from None
        result = answer.result()
        return await result if isawaitable(result) else result  # a lambda around a coroutine function
