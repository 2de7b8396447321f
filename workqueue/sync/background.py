"""Stage 1: the one event loop that a process has for all its synchronous queues, in a thread of its own.

A call is put into a deque and the loop is woken once for all that lie there: a wake-up is a system call, which 32
threads would otherwise make for every key. A plain lock is what the caller waits on; a `concurrent.futures.Future`
costs several times that.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar

from workqueue.errors import StoreUnavailableError, UnsupportedError

__all__ = ["PROCESS", "Background", "Process"]

_T = TypeVar("_T")
_CLOSING = timedelta(seconds=5)
_RUNS_A_LOOP = (
    "this thread runs an event loop, which a synchronous call would block: use 'async with workqueue.open_queue(…)'"
)


class _Call(Generic[_T]):
    """One call: what to do, and how it ended."""

    __slots__ = ("_step", "_task", "answer", "ended", "error")

    def __init__(self, step: Callable[[], Awaitable[_T]]) -> None:
        self._step = step
        self._task: asyncio.Task[None] | None = None
        self.answer: _T
        self.error: BaseException | None = None
        self.ended = threading.Lock()
        self.ended.acquire()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run())

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self.answer = await self._step()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the call was made
            self.error = error
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.release()


class Background:
    """An event loop in a daemon thread, which begins with the first call."""

    def __init__(self) -> None:
        self.opening = threading.RLock()
        """Held while a queue is opened or closed."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[_Call[Any]] = deque()
        self._is_woken = False
        self._closers: dict[int, Callable[[], Awaitable[object]]] = {}

    def call(self, step: Callable[[], Awaitable[_T]], timeout: timedelta) -> _T:
        """What `step` returns or raises on the loop; the calling thread waits for it.

        Raises:
            StoreUnavailableError: it took longer than `timeout`; it was cancelled, and may or may not have been done.
            UnsupportedError: the calling thread runs an event loop.
        """
        if asyncio._get_running_loop() is not None:
            raise UnsupportedError(_RUNS_A_LOOP)
        call = _Call(step)
        loop = self._loop or self._started()
        self._calls.append(call)
        if not self._is_woken:
            self._is_woken = True
            loop.call_soon_threadsafe(self._begin)
        self._await(call, loop, timeout)
        if call.error is not None:
            raise call.error
        return call.answer

    def at_exit(self, owner: object, closer: Callable[[], Awaitable[object]]) -> None:
        """Call `closer` on the loop when the process ends."""
        self._closers[id(owner)] = closer

    def closed(self, owner: object) -> None:
        """`owner` is closed: there is nothing to do for it when the process ends."""
        self._closers.pop(id(owner), None)

    def close(self) -> None:
        """Close whatever is open, and end the thread's work."""
        for closer in list(self._closers.values()):
            self.call(closer, _CLOSING)
        self._closers.clear()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _await(self, call: _Call[Any], loop: asyncio.AbstractEventLoop, timeout: timedelta) -> None:
        try:
            if call.ended.acquire(timeout=timeout.total_seconds()):
                return
        except BaseException:  # such as KeyboardInterrupt: nobody will ask for the answer
            loop.call_soon_threadsafe(call.cancel)
            raise
        loop.call_soon_threadsafe(call.cancel)
        raise StoreUnavailableError(
            f"no answer within {timeout.total_seconds():g} s; it may have been done, and doing it again is safe"
        )

    def _started(self) -> asyncio.AbstractEventLoop:
        with self.opening:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, name="workqueue.sync", daemon=True).start()
                self._loop = loop
        return self._loop

    def _begin(self) -> None:
        # First the flag, then the calls: one that is added after the last look finds the flag down, and wakes us again.
        self._is_woken = False
        loop = asyncio.get_running_loop()
        while self._calls:
            self._calls.popleft().begin(loop)


class Process:
    """What this process has: one background loop, made anew in a child, where threads of the parent do not run."""

    def __init__(self) -> None:
        self.background = Background()
        os.register_at_fork(after_in_child=self._forked)
        _before_executors_end(self._end)

    def _forked(self) -> None:
        self.background = Background()

    def _end(self) -> None:
        self.background.close()


def _before_executors_end(step: Callable[[], None]) -> None:
    """Call `step` when the program ends, while threads can still be given work: closing a file needs one.

    Functions of `atexit` come later than the end of every executor. What `threading` calls, it calls before, the last
    one registered first: so the module of the executors has to be imported, which registers them.
    """
    importlib.import_module("concurrent.futures.thread")
    register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
    register(step)


PROCESS = Process()
"""The process itself; threads, forks and its end are facts about it, so it is the one object that a module holds."""
