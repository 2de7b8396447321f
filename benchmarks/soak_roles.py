"""The processes of the soak, one that produces and those that dispatch: `python -m benchmarks.soak_roles ROLE …`."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from zlib import crc32

from benchmarks.soak_witness import Log, Witness
from dispatcher import Attempt, Dispatcher, DispatcherSettings
from dispatcher.loop import run_until_signalled
from workqueue import Options, StoreUnavailableError, open_queue
from workqueue.handles import Owned
from workqueue.optional import Completed, Leased, LeaseRequest

BATCH = 200
_PLAIN = Options()


def enqueues(keys: int, duplicates: float, seed: int) -> Iterator[int]:
    """Every key once, in random order, and duplicates in between: half of them of keys that came just before."""
    chance = random.Random(seed)
    order = list(range(keys))
    chance.shuffle(order)
    for position, key in enumerate(order):
        yield key
        for _ in range(round(1 / (1 - duplicates)) - 1):
            recent = max(0, position - 1000)
            yield order[chance.randint(recent, position)] if chance.random() < 0.5 else chance.randrange(keys)


async def produce(url: str, workspace: Path, keys: int, duplicates: float) -> None:
    """Enqueue, in batches, and write down what was acknowledged and when it was sent."""
    accepted = Log(workspace / f"accepted-{os.getpid()}")
    batch: list[int] = []
    async with open_queue(url) as queue:
        for number in enqueues(keys, duplicates, seed=1):
            batch.append(number)
            if len(batch) == BATCH:
                await _store(queue, accepted, batch)
                batch = []
        await _store(queue, accepted, batch)


async def _store(queue: Any, accepted: Log, batch: list[int]) -> None:
    while True:
        sent_ns = time.monotonic_ns()
        try:
            await queue.queue_many([(f"key-{number:020}", _PLAIN) for number in batch])
        except StoreUnavailableError:
            continue  # unknown which were stored; enqueueing all again is safe
        accepted.write(*((number, sent_ns, 0) for number in batch))
        return


class Witnessed:
    """The queue, whose settles are written down: which lease, and that it was accepted.

    The handles that it gives out are ordinary ones, whose store it is, so that the dispatcher goes its usual way.
    """

    def __init__(self, queue: Any, settled: Log) -> None:
        self._queue = queue
        self._settled = settled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def lease(self, request: LeaseRequest) -> Coroutine[Any, Any, Leased]:
        return self._ours(self._queue.lease(request))

    async def _ours(self, asked: Awaitable[Leased]) -> Leased:
        leased = await asked
        started: Sequence[Any] = leased.started
        handles = [Owned(cast(Any, self), owned.entry, owned.lease, owned.version) for owned in started]
        return Leased(handles, leased.recovered, leased.errors)

    async def complete(self, owned: Owned) -> bool:
        accepted: bool = await self._queue.complete(owned)
        self._note(owned, accepted)
        return accepted

    def complete_soon(self, owned: Owned, ended: Completed) -> None:
        def noted(answer: bool | Exception) -> None:
            self._note(owned, answer)
            ended(answer)

        self._queue.complete_soon(owned, noted)

    def _note(self, owned: Owned, answer: bool | Exception) -> None:
        if answer is True:
            self._settled.write((crc32(owned.lease.token.encode()), crc32(owned.key.encode()), 0))


async def dispatch(url: str, workspace: Path, limit: int) -> None:
    """Dispatch until ended; the reconciler is the witness."""
    witness = Witness(workspace, limit)

    async def reconcile(key: str, attempt: Attempt) -> None:
        number, began_ns = int(key.removeprefix("key-")), time.monotonic_ns()
        slot = witness.begin(number)
        await asyncio.sleep(random.random() / 1000)
        witness.end(number, slot, began_ns, attempt.attempts)

    settled = Log(workspace / f"settled-{os.getpid()}")
    async with open_queue(url, owner=str(os.getpid())) as queue:
        witnessed: Any = Witnessed(queue, settled)
        # Runs at the first pause of what follows, which is after it began to listen for signals.
        asyncio.get_running_loop().call_soon((workspace / f"ready-{os.getpid()}").touch)
        await run_until_signalled(Dispatcher(witnessed, reconcile, DispatcherSettings(concurrency=limit)))


def main() -> None:
    role, url, workspace, *rest = sys.argv[1:]
    logging.basicConfig(level=logging.ERROR)  # orphans and connections lost are what this is about
    if role == "produce":
        asyncio.run(produce(url, Path(workspace), int(rest[0]), float(rest[1])))
    else:
        asyncio.run(dispatch(url, Path(workspace), int(rest[0])))


if __name__ == "__main__":
    main()
