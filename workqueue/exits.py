"""Stage 5: `sys.exit` in a task that a callback started fails that attempt, as it does in the callback itself.

asyncio passes a SystemExit that leaves any task on to whoever runs the event loop. So one key whose callback exits in
an `asyncio.TaskGroup` would end every process that takes it. A KeyboardInterrupt still ends the loop: somebody pressed
a key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

__all__ = ["CallingTask", "ExitedError", "exits_contained"]


class ExitedError(Exception):
    """A task that the callback started called `sys.exit`."""

    def __init__(self, raised: SystemExit) -> None:
        super().__init__(f"a task of the callback called sys.exit({raised.code!r})")


class CallingTask(asyncio.Task[None]):
    """A task that calls a callback. `exits_contained` looks at `is_calling` of any task that has it."""

    is_calling = True


@contextlib.contextmanager
def exits_contained() -> Iterator[None]:
    """Turn a SystemExit in a task that a callback makes, or its tasks, into an `ExitedError`, which its awaiter gets.

    The running event loop gets a task factory, which hands on to the one that it had. The last to leave takes it away.
    """
    loop = asyncio.get_running_loop()
    before: Any = loop.get_task_factory()
    factory = before if isinstance(before, _Containing) else _Containing(before)
    factory.users += 1
    if factory is not before:
        loop.set_task_factory(factory)
    try:
        yield
    finally:
        factory.users -= 1
        if not factory.users and loop.get_task_factory() is factory:
            loop.set_task_factory(factory.before)


class _Containing:
    """A task factory."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.users = 0
        self._make: Callable[..., asyncio.Future[Any]] = before or _task

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **kwargs: Any
    ) -> asyncio.Future[Any]:
        if _is_in_callback(asyncio.current_task(loop)) and isinstance(coro, Coroutine):
            coro = _Contained(coro)
        return self._make(loop, coro, **kwargs)


def _task(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Future[Any]:
    return asyncio.Task(coro, loop=loop, **kwargs)


def _is_in_callback(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and (getattr(task, "is_calling", False) or isinstance(task.get_coro(), _Contained))


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine that does not exit.

    No `async def` around it: a task that is cancelled before its first step would never begin the one within.
    """

    __slots__ = ("__name__", "__qualname__", "_within")

    def __init__(self, within: Coroutine[Any, Any, Any]) -> None:
        self._within = within
        self.__name__ = getattr(within, "__name__", type(within).__name__)
        self.__qualname__ = getattr(within, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        try:
            return self._within.send(value)
        except SystemExit as raised:
            raise ExitedError(raised) from raised

    def throw(self, *error: Any) -> Any:
        try:
            return self._within.throw(*error)
        except SystemExit as raised:
            raise ExitedError(raised) from raised
        finally:
            del error  # its traceback holds this frame

    def close(self) -> None:
        self._within.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._within.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._within, name)  # its frame and its code, for who shows a task
