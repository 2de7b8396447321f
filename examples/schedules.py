"""Two schedules and a reconciler in one process, for three seconds.

    python -m examples.schedules

One ticks every second, and its key is reconciled each time. The other ticks at night; its next firings are shown.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from dispatcher import Attempt, Dispatcher
from dispatcher.schedules import FIRING
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.sources.schedules import Firing, Schedule, Shelf

HEARTBEAT = Schedule("heartbeat", "@every 1s", "heart")
NIGHTLY = Schedule("nightly", "30 2 * * *", "reports/nightly", zone="Europe/Berlin")


async def main() -> None:
    """Declare both, fire them, and reconcile what they enqueue until three ticks were seen."""
    beats = asyncio.Semaphore(0)

    async def reconcile(key: str, attempt: Attempt) -> None:
        print(f"{key}: the tick of {attempt.meta['scheduled-time'][11:19]}")
        beats.release()

    async with MemoryQueue("builds") as queue, MemoryQueue("builds.schedules") as schedules:
        shelf = Shelf(schedules)
        await shelf.declare([HEARTBEAT, NIGHTLY])
        for kept in await shelf.listing():
            if kept.schedule is not None:
                coming = islice(kept.schedule.firings(kept.after_us), 3)
                print(f"{kept.name} fires next at", ", ".join(f"{moment:%a %H:%M:%S} UTC" for moment in coming))
        async with Dispatcher(schedules, Firing(queue, schedules), FIRING), Dispatcher(queue, reconcile):
            for _ in range(3):
                await beats.acquire()


if __name__ == "__main__":
    asyncio.run(main())
