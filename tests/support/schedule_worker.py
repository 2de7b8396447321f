"""`python -m tests.support.schedule_worker URL before|after`: fires schedules, and dies of the first one.

It kills itself with SIGKILL before the user's key is stored, or after that and before the tick is noted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from dispatcher import Dispatcher
from dispatcher.schedules import FIRING
from workqueue import Options, open_queue
from workqueue.fallbacks import FullQueue
from workqueue.sources.schedules import Firing, schedules_url


class Deadly:
    """A target at which its process dies."""

    def __init__(self, queue: FullQueue, when: str) -> None:
        self._queue = queue
        self._when = when

    async def queue(self, key: str, options: Options = Options()) -> None:
        if self._when == "after":
            await self._queue.queue(key, options)
        os.kill(os.getpid(), signal.SIGKILL)


async def main(url: str, when: str) -> None:
    async with open_queue(url) as target, open_queue(schedules_url(url)) as schedules:
        await Dispatcher(schedules, Firing(Deadly(target, when), schedules), FIRING).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
