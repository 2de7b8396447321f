"""Several processes on one SQLite file: they wake each other, share the limit, and survive each other's kill -9."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.processes import Spawned, spawned
from tests.support.sqlite import lease, sqlite_queue, sqlite_url
from workqueue.backends.sqlite.backend import SqliteQueue
from workqueue.optional import LeaseRequest

KEYS = 60
QUICK = {"lease": "1s", "renew": "200ms"}


class Ledger:
    """What the processes said, in the order in which it was heard."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.heard = asyncio.Event()

    def keys(self, word: str) -> list[str]:
        return [key for said, key in self.lines if said == word]

    async def until(self, lines: int) -> None:
        while len(self.lines) < lines:
            self.heard.clear()
            await self.heard.wait()


@asynccontextmanager
async def worker(path: Path, ledger: Ledger, keys: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of `sqlite_worker`, killed with SIGKILL at the end of the block; the ledger has all that it said."""
    program = [sys.executable, "-m", "tests.support.sqlite_worker", sqlite_url(path, **QUICK), *keys]
    async with spawned(program) as it:
        listening = asyncio.ensure_future(listen(it, ledger))
        try:
            yield it.process
        finally:
            if it.process.returncode is None:
                it.process.kill()
            await listening


async def listen(it: Spawned, ledger: Ledger) -> None:
    assert it.process.stdout is not None
    async for line in it.process.stdout:
        if line.endswith(b"\n"):
            word, key = line.decode().split()
            ledger.lines.append((word, key))
            ledger.heard.set()


async def drain(queue: SqliteQueue) -> list[str]:
    """Complete everything there is, waiting for the leases of the dead; returns the keys."""
    completed: list[str] = []
    while (counts := await queue.counts()).queued + counts.not_before + counts.in_progress:
        leased = await queue.lease(LeaseRequest(100, 100, backoff=lambda attempts: timedelta(milliseconds=1)))
        completed += [owned.key for owned in leased.started if await owned.complete()]
        if not leased.started:
            await queue.wait(timedelta(seconds=10), 100)
    return completed


@pytest.mark.parametrize("seed", range(6))
async def test_a_kill_9_of_two_processes_at_any_moment_loses_no_key_and_completes_none_twice(
    tmp_path: Path, seed: int
) -> None:
    moment = random.Random(seed)
    ledger = Ledger()
    keys = [f"key-{number}" for number in range(KEYS)]
    path = tmp_path / "q.db"
    async with worker(path, ledger, keys[: KEYS // 2]), worker(path, ledger, keys[KEYS // 2 :]):
        await ledger.until(moment.randrange(1, KEYS * 2))

    async with sqlite_queue(path, **QUICK) as queue:
        left = await drain(queue)

    done = Counter([*ledger.keys("completed"), *left])
    seen_to = {*done, *ledger.keys("completing")}  # it may be killed between the commit and saying so
    assert set(ledger.keys("stored")) <= seen_to, "an acknowledged key is gone"
    assert set(ledger.keys("started")) <= seen_to, "a key that was under way is gone"
    assert max(done.values(), default=1) == 1, "a key was completed twice"


async def test_what_a_killed_process_had_in_progress_is_started_by_the_other(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    ledger = Ledger()
    async with sqlite_queue(path, **QUICK) as held:
        await held.queue("a")
        (owned,) = (await lease(held)).started
        async with worker(path, ledger, []):
            owned.abandon()  # as kill -9 does to a lease: nobody renews it any more
            await ledger.until(3)

        assert ledger.lines == [("started", "a"), ("completing", "a"), ("completed", "a")]
        assert await owned.complete() is False


async def test_a_process_that_waits_is_woken_by_what_another_enqueues(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    ledger = Ledger()
    async with sqlite_queue(path, **QUICK) as queue:
        waiting = asyncio.ensure_future(queue.wait(timedelta(hours=1), 10))
        async with worker(path, ledger, []) as process:
            process.kill()
        assert not waiting.done()

        async with sqlite_queue(path, **QUICK) as other:
            await other.queue("a")
            await asyncio.wait_for(waiting, 30)

        assert [owned.key for owned in (await lease(queue)).started] == ["a"]


async def test_dispatchers_in_several_processes_never_exceed_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    queues = [sqlite_queue(path) for _ in range(4)]
    await asyncio.gather(*[queue.__aenter__() for queue in queues])
    await asyncio.gather(*[queues[0].queue(f"key-{number}") for number in range(50)])

    leased = await asyncio.gather(*[queue.lease(LeaseRequest(5, 7)) for queue in queues for _ in range(3)])

    started = [owned.key for each in leased for owned in each.started]
    assert len(started) == len(set(started)) == 7
    await asyncio.gather(*[queue.__aexit__() for queue in queues])
