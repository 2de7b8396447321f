"""How a delayed key becomes eligible at once, for commands and for the console: it is enqueued once more."""

from __future__ import annotations

from workqueue.interface import QueuedKey, WorkQueue
from workqueue.options import Options

__all__ = ["run_now"]


async def run_now(queue: WorkQueue, delayed: QueuedKey) -> bool:
    """Make a delayed key eligible; False if it has a floor, and so waits for its time.

    Of two not-befores the earlier counts, unless the first is a floor.
    """
    if delayed.floor:
        return False
    await queue.queue(delayed.key, Options(priority=delayed.priority))
    return True
