"""On the clocks of stores and machines, not on a FakeClock: microseconds are kept, so that order and leases hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory

import pytest

from tests.fakes.redis_server import shared_server
from tests.support.gcs import emulator
from tests.support.redis import fresh_name
from workqueue.backends import open_queue
from workqueue.optional import LeaseRequest


@contextmanager
def _store(name: str) -> Iterator[str]:
    """The URL of a queue that nobody used before, in a store whose clock is this machine's."""
    if name == "gcs":
        with emulator() as server:
            yield f"gs://wq?endpoint={server.url}&anonymous=true"
    elif name == "redis":
        yield shared_server().url(fresh_name())
    elif name == "sqlite":
        with TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/queue.db?name=clocks"
    else:
        yield "memory://?name=clocks"


STORES = ["memory", "sqlite", "redis", "gcs"]


@pytest.mark.parametrize("store", STORES)
async def test_keys_of_one_second_start_in_the_order_in_which_they_came(store: str) -> None:
    keys = [f"{number}" for number in range(9, 0, -1)]  # by name it would be the other way round
    with _store(store) as url:
        async with open_queue(url) as queue:
            for key in keys:
                await queue.queue(key)
            started = (await queue.lease(LeaseRequest(limit=9, concurrency=9))).started

    assert [owned.key for owned in started] == keys


@pytest.mark.parametrize("store", STORES)
async def test_a_queued_time_lies_between_the_call_and_its_answer(store: str) -> None:
    with _store(store) as url:
        async with open_queue(url) as queue:
            before = datetime.now(UTC)
            await queue.queue("a")
            after = datetime.now(UTC)
            queued = (await queue.get("a")).queued_time

    assert queued is not None
    assert before <= queued <= after


@pytest.mark.parametrize("store", STORES)
async def test_a_lease_lasts_as_long_as_it_should(store: str) -> None:
    with _store(store) as url:
        async with open_queue(f"{url}&lease=30s") as queue:
            await queue.queue("a")
            before = datetime.now(UTC)
            await queue.lease(LeaseRequest(limit=1, concurrency=1))
            after = datetime.now(UTC)
            expires = (await queue.get("a")).lease_expires

    assert expires is not None
    assert before + timedelta(seconds=29) < expires < after + timedelta(seconds=31)
