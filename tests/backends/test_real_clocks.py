"""On the clocks of stores and machines, not on a FakeClock: microseconds are kept, so that order and leases hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes.redis_server import shared_server
from tests.support.gcs import emulator
from tests.support.redis import fresh_name
from workqueue.backends import open_queue
from workqueue.optional import LeaseRequest


@pytest.fixture(params=["memory", "sqlite", "redis", "gcs"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A queue that nobody used before, in a store whose clock is this machine's."""
    if request.param == "gcs":
        with emulator() as server:
            yield f"gs://wq?endpoint={server.url}&anonymous=true"
        return
    yield {
        "memory": "memory://",
        "sqlite": f"sqlite:///{tmp_path}/queue.db",
        "redis": shared_server().url(fresh_name()),
    }[request.param]


async def test_keys_of_one_second_start_in_the_order_in_which_they_came(url: str) -> None:
    keys = [f"{number}" for number in range(9, 0, -1)]  # by name it would be the other way round
    async with open_queue(url) as queue:
        for key in keys:
            await queue.queue(key)
        started = (await queue.lease(LeaseRequest(limit=9, concurrency=9))).started

        assert [owned.key for owned in started] == keys


async def test_a_queued_time_lies_between_the_call_and_its_answer(url: str) -> None:
    async with open_queue(url) as queue:
        before = datetime.now(UTC)
        await queue.queue("a")
        after = datetime.now(UTC)
        queued = (await queue.get("a")).queued_time

        assert queued is not None
        assert before <= queued <= after


async def test_a_lease_lasts_as_long_as_it_should(url: str) -> None:
    async with open_queue(f"{url}{'&' if '?' in url else '?'}lease=30s") as queue:
        await queue.queue("a")
        before = datetime.now(UTC)
        await queue.lease(LeaseRequest(limit=1, concurrency=1))
        after = datetime.now(UTC)
        expires = (await queue.get("a")).lease_expires

        assert expires is not None
        assert before + timedelta(seconds=29) < expires < after + timedelta(seconds=31)
