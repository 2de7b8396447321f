"""Two ways to wait that asyncio has not: through a cancellation, and for tasks that come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, TypeVar

__all__ = ["all_done", "to_the_end"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")


async def to_the_end(task: asyncio.Task[_T], cancelled: Callable[[], object] | None = None) -> _T:
    """Wait for `task` however often we are cancelled; the cancellation is raised once it has ended.

    Not `asyncio.shield`: that returns at once, and then nobody waits for what it shielded.

    Args:
        task: what to wait for; it is never cancelled.
        cancelled: called at each cancellation, to ask the task to hurry.
    """
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancellation = error
            if cancelled is not None:
                cancelled()
    if cancellation is None:
        return task.result()
    if not task.cancelled() and task.exception() is not None:
        log.error("failed while being cancelled", exc_info=task.exception())
    raise cancellation


async def all_done(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Return once `tasks`, from which each task takes itself out at its end, is empty."""
    while tasks:
        await asyncio.wait(tuple(tasks))
