"""The soak's processes: what they store, and that a dispatcher of theirs settles in the way that is to be tested."""

from __future__ import annotations

from pathlib import Path

from benchmarks.soak import is_drained, redis
from benchmarks.soak_roles import Witnessed, produce
from benchmarks.soak_witness import Log, count_records, read_log
from dispatcher import Dispatcher, DispatcherSettings
from tests.support.dispatching import until
from workqueue import open_queue
from workqueue.optional import CompletingQueue, PipelinedQueue, offers

KEYS = 100


async def nothing(key: str, attempt: object) -> None:
    """A reconciler for which everything is as it should be."""


async def test_what_is_produced_is_drained_and_every_settle_is_written_down_once(tmp_path: Path) -> None:
    with redis("single", 0) as (url, _):
        await produce(url, tmp_path, KEYS, 0.9)
        settled = Log(tmp_path / "settled-1")
        async with open_queue(url) as queue:
            witnessed = Witnessed(queue, settled)
            async with Dispatcher(witnessed, nothing, DispatcherSettings(concurrency=40)) as dispatcher:
                await until(lambda: dispatcher.metrics.outcomes["completed"] == KEYS)
        assert await is_drained(url)

    assert offers(witnessed, CompletingQueue)
    assert offers(witnessed, PipelinedQueue)
    assert len({key for _, key, _ in read_log(tmp_path, "settled")}) == count_records(tmp_path, "settled") == KEYS
