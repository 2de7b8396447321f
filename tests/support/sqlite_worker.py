"""A process that enqueues the keys it is told and completes whatever it can lease, saying so line by line.

`python -m tests.support.sqlite_worker URL KEY…`; a line is written once what it says was answered, so the record of
whoever reads them is a ledger that the queue knows nothing of.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

from workqueue.backends import open_queue
from workqueue.fallbacks import FullQueue
from workqueue.interface import OwnedInProgressKey
from workqueue.optional import LeaseRequest

CONCURRENCY = 4
SOON = timedelta(milliseconds=1)


def say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


async def enqueue(queue: FullQueue, keys: list[str]) -> None:
    for key in keys:
        await queue.queue(key)
        say("stored", key)


async def complete(owned: OwnedInProgressKey) -> None:
    say("started", owned.key)
    await asyncio.sleep(0.002)
    say("completing", owned.key)
    if await owned.complete():
        say("completed", owned.key)


async def work(queue: FullQueue) -> None:
    while True:
        leased = await queue.lease(LeaseRequest(CONCURRENCY, CONCURRENCY, backoff=lambda attempts: SOON))
        await asyncio.gather(*map(complete, leased.started))
        if not leased.started:
            await queue.wait(timedelta(seconds=10), CONCURRENCY)


async def main(url: str, keys: list[str]) -> None:
    async with open_queue(url) as queue, asyncio.TaskGroup() as group:
        group.create_task(enqueue(queue, keys))
        group.create_task(work(queue))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
