"""Where a queue is open: on the event loop that entered it, until it is closed. Every verb asks first.

What a queue holds (futures, connections, a writer's thread) belongs to one event loop. A call from elsewhere would do
its work and then wait for an answer that never comes, or wake nobody. So it is refused before anything happens.
"""

from __future__ import annotations

import asyncio
from threading import get_ident

from workqueue.errors import QueueClosedError

__all__ = ["Home"]

_NOBODY = 0  # no thread has this identifier
_NEVER = "this queue was never entered: use it inside 'async with open_queue(…) as queue'"
_ENTERED = "a queue is entered once; open another with `open_queue`"
_ELSEWHERE = (
    "this queue was entered on another event loop or thread; open one for each loop, "
    "or hand the call to that loop with asyncio.run_coroutine_threadsafe"
)


class Home:
    """The event loop on which a queue was entered.

    A verb that is called a million times a second compares itself: it goes on if `get_ident() == home.thread and
    home.is_running()`, else it raises `home.refusal()`. The others call `check`. This asks for the thread, and whether
    the loop runs in it, because `asyncio.get_running_loop` costs a system call until Python 3.12.
    """

    __slots__ = ("is_running", "loop", "thread")

    loop: asyncio.AbstractEventLoop
    """Where the queue is open; set once it was entered."""

    def __init__(self) -> None:
        self.thread = _NOBODY
        self.is_running = _never

    def enter(self) -> None:
        """Open here: every verb is refused before, and from anywhere else.

        Raises:
            QueueClosedError: it was entered before.
        """
        if self.is_running is not _never:
            raise QueueClosedError(_ENTERED)
        self.loop = asyncio.get_running_loop()
        self.is_running = self.loop.is_running
        self.thread = get_ident()

    def undo(self) -> None:
        """The queue could not be opened; it may be tried again."""
        self.thread, self.is_running = _NOBODY, _never

    def leave(self) -> None:
        """Closed: from now on every verb is refused."""
        self.thread = _NOBODY
        if self.is_running is _never:
            self.is_running = _closed

    def is_here(self) -> bool:
        """Whether the queue is open, and this is its event loop."""
        return get_ident() == self.thread and self.is_running()

    def check(self) -> None:
        """Pass if the queue is open, and this is its event loop.

        Raises:
            QueueClosedError: it is not; nothing was done.
        """
        if not self.is_here():
            raise self.refusal()

    def refusal(self) -> QueueClosedError:
        """Why a call from here is refused."""
        if self.is_running is _never:
            return QueueClosedError(_NEVER)
        is_elsewhere = self.thread != _NOBODY and not self.is_here()
        return QueueClosedError(_ELSEWHERE if is_elsewhere else "")


def _never() -> bool:
    return False


def _closed() -> bool:
    return False
