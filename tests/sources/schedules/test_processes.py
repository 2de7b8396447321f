"""Schedules over real processes, some of which are killed: every tick has its run, in spite of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from dispatcher import Attempt, Dispatcher
from tests.fakes.gcs.process import GcsProcess
from tests.fakes.redis_server import shared_server
from tests.support.processes import python
from tests.support.programs import Server, serving
from tests.support.redis import fresh_name
from workqueue import KeyStatus, open_queue
from workqueue.clock import to_us
from workqueue.fallbacks import FullQueue
from workqueue.sources.schedules import Schedule, Shelf, schedules_url

SECOND = timedelta(seconds=1)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/queue.db?lease=1s"
    return shared_server().url(fresh_name(), lease="1s")


async def declare(url: str, *schedules: Schedule) -> None:
    async with open_queue(schedules_url(url)) as queue:
        await Shelf(queue).declare(schedules)


@contextmanager
def firing(url: str, *args: str) -> Iterator[Server]:
    with serving("dispatcher.cli", "schedules", "--http-port", "0", *args, env={"WORKQUEUE_URL": url}) as server:
        server.logged("dispatching")
        yield server


class Ticks:
    """A reconciler that notes the tick of each run, by key."""

    def __init__(self, *keys: str) -> None:
        self.seen: dict[str, set[datetime]] = {key: set() for key in keys}
        self._wanted = 0
        self._enough = asyncio.Event()

    async def __call__(self, key: str, attempt: Attempt) -> None:
        self.seen[key].add(datetime.fromisoformat(attempt.meta["scheduled-time"]))
        if self._fewest >= self._wanted:
            self._enough.set()

    @property
    def _fewest(self) -> int:
        return min(map(len, self.seen.values()))

    async def more(self, queue: FullQueue, ticks: int) -> None:
        """Reconcile until each key had this many ticks more."""
        self._wanted, self._enough = self._fewest + ticks, asyncio.Event()
        async with Dispatcher(queue, self):
            await self._enough.wait()

    def steps(self, key: str) -> set[timedelta]:
        """What lies between the ticks of a key."""
        moments = sorted(self.seen[key])
        return {later - earlier for earlier, later in pairwise(moments)}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_process_killed_around_the_enqueue_of_a_tick_loses_none(url: str, when: str) -> None:
    await no_tick_is_lost(url, when)


async def test_a_process_killed_before_the_enqueue_of_a_tick_loses_none_in_a_bucket() -> None:
    with GcsProcess() as server:
        await no_tick_is_lost(f"gs://wq?endpoint={server.url}&anonymous=true&lease=1s&renew=300ms", "before")


async def no_tick_is_lost(url: str, when: str) -> None:
    await declare(url, Schedule("s", "@every 1s", "k", missed="all"))
    died = await asyncio.to_thread(python, "-m", "tests.support.schedule_worker", url, when)
    assert died.code == -signal.SIGKILL
    ticks = Ticks("k")
    with ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, firing(url))
        async with open_queue(url) as queue:
            await ticks.more(queue, 4)
    assert ticks.steps("k") == {SECOND}
    async with open_queue(schedules_url(url)) as queue:
        (kept,) = await Shelf(queue).listing()
    assert kept.schedule is not None
    assert to_us(min(ticks.seen["k"])) == kept.schedule.since_us + 1_000_000, "the first tick is among them"


async def test_processes_share_the_ticks_and_one_that_is_killed_leaves_no_gap(url: str) -> None:
    keys = ["a", "b", "c"]
    await declare(url, *[Schedule(key, "@every 1s", key, missed="all") for key in keys])
    ticks = Ticks(*keys)
    with ExitStack() as stack:
        first, second = [await asyncio.to_thread(stack.enter_context, firing(url)) for _ in range(2)]
        async with open_queue(url) as queue:
            await ticks.more(queue, 2)
            first.tell(signal.SIGKILL)
            await ticks.more(queue, 4)
        second.tell()
        assert await asyncio.to_thread(second.ended) == 0
    assert [ticks.steps(key) for key in keys] == [{SECOND}] * 3


async def test_a_file_declares_what_is_fired_beside_a_dispatcher(url: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.toml"
    file.write_text('[s]\nwhen = "@every 1s"\nkey = "k"\n')
    args = ("run", "--callback", "tests.support.reconcilers:fail", "--http-port", "0", "--schedules")
    command = ("dispatcher.cli", *args, "--schedules-file", str(file))
    with serving(*command, env={"WORKQUEUE_URL": url, "WORKQUEUE_MAX_RETRY": "1"}) as server:
        await asyncio.to_thread(server.logged, "dead-lettered")
        server.tell()
        assert await asyncio.to_thread(server.ended) == 0
    async with open_queue(url) as queue:
        assert (await queue.get("k")).status in (KeyStatus.DEAD_LETTER, KeyStatus.QUEUED)
