"""What a bucket is asked for: every request is billed, so how many there are is a promise (docs/backends.md)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.fakes.gcs.server import GcsServer
from tests.support.dispatching import until
from tests.support.gcs import bucket_queue, emulator, operations, start_all, start_one
from workqueue.optional import LeaseRequest
from workqueue.options import Options
from workqueue.paging import PageRequest, Place
from workqueue.testing import FakeClock

LOOK = "list in-progress"
LIST = ["list queued/", "list dead-letter/"]


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


async def test_an_enqueue_is_one_write(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        server.reset()
        await queue.queue("a", Options(priority=5, payload=b"p"))

    assert operations(server) == ["insert queued/a"]


async def test_a_duplicate_is_a_refused_write_and_a_read(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        await queue.queue("a")
        server.reset()
        await queue.queue("a")

    assert operations(server) == ["insert queued/a", "get queued/a"]


async def test_a_start_is_a_copy_and_a_delete(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        await queue.queue("a")
        server.reset()
        await start_all(queue)

    moved = ["copy queued/a > in-progress/a", "delete queued/a"]
    assert operations(server) == [LOOK, *LIST, *moved, LOOK]


async def test_a_completion_is_one_delete(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        owned = await start_one(queue)
        server.reset()
        await owned.complete()

    assert operations(server) == ["delete in-progress/a"]


async def test_a_completion_also_deletes_a_dead_letter_that_is_known(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        await (await start_one(queue)).dead_letter("boom")
        owned = await start_one(queue)
        server.reset()
        await owned.complete()

    assert operations(server) == ["delete in-progress/a", "delete dead-letter/a"]


async def test_a_completion_looks_for_a_dead_letter_where_there_may_be_one(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        assert await start_all(queue) == []  # from now on what it enqueues itself is known without a listing
        await queue.queue("a")
        (owned,) = await start_all(queue, limit=1)
        server.reset()
        await owned.complete()

    assert operations(server) == ["get dead-letter/a", "delete in-progress/a"]


async def test_a_requeue_is_a_copy_and_a_delete(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        owned = await start_one(queue)
        server.reset()
        await owned.requeue()

    assert operations(server) == ["copy in-progress/a > queued/a", "delete in-progress/a"]


async def test_an_exact_limit_is_one_write_and_one_delete_more_a_key(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock(), exact=True) as queue:
        await start_all(queue)  # the bucket is marked
        await queue.queue("a")
        server.reset()
        (owned,) = await start_all(queue, concurrency=1)
        await owned.complete()

    counts = Counter(operation.partition(" ")[0] for operation in operations(server))
    assert counts == {"list": 1, "insert": 1, "copy": 1, "delete": 3, "get": 1}


async def test_a_round_without_a_free_slot_lists_what_is_in_progress_and_nothing_else(server: GcsServer) -> None:
    server.store.fill("wq", [f"queued/{number}" for number in range(2500)])

    async with bucket_queue(server, FakeClock()) as queue:
        await start_all(queue, limit=3, concurrency=3)
        server.reset()
        for _ in range(5):
            assert await start_all(queue, concurrency=3) == []

    assert operations(server) == [LOOK] * 5


async def listed(server: GcsServer, pages: int) -> None:
    await until(lambda: operations(server).count("list queued/") >= pages)


async def test_a_backlog_is_listed_once_a_refresh_and_not_once_a_round(server: GcsServer) -> None:
    server.store.fill("wq", [f"queued/{number:05}" for number in range(2500)])
    clock = FakeClock()

    async with bucket_queue(server, clock) as queue:
        await queue.enumerate(0)
        for seconds, pages in ((0, 0), (1, 0), (28, 0), (2, 3), (0, 0)):
            clock.freeze(timedelta(seconds=seconds))
            server.reset()
            for owned in await start_all(queue, limit=10):
                await owned.complete()
            await listed(server, pages)  # in the background
            assert operations(server).count("list queued/") == pages


async def test_a_backlog_that_waits_for_its_time_is_not_listed_all_the_time(server: GcsServer) -> None:
    """Nothing of it can be started, so every round finds the list dry."""
    later = {"not-before": "2099-01-01T00:00:00Z"}
    server.store.fill("wq", [f"queued/{number:06}" for number in range(20_000)], later)

    clock = FakeClock()
    async with bucket_queue(server, clock) as queue:
        await queue.enumerate(0)
        server.reset()
        for _ in range(10):
            await start_all(queue)
            clock.freeze(timedelta(milliseconds=50))

    assert operations(server).count("list queued/") == 0


async def test_draining_takes_three_requests_a_key_and_a_few_lists(server: GcsServer) -> None:
    server.store.fill("wq", [f"queued/{number:05}" for number in range(500)])

    async with bucket_queue(server, FakeClock()) as queue:
        server.reset()
        while started := await start_all(queue, limit=50):
            await asyncio.gather(*(owned.complete() for owned in started))

    assert len(operations(server)) / 500 < 3.1


async def test_what_is_known_of_a_key_needs_no_request(server: GcsServer) -> None:
    """Own enqueues and requeues go into the kept list as they are, and are started from it."""

    async def scenario() -> int:
        clock = FakeClock()
        async with bucket_queue(server, clock) as queue:
            await start_all(queue)
            for key in "abc":
                await queue.queue(key)
            server.reset()
            leased = await queue.lease(LeaseRequest(3, 3))
            return len(leased.started)

    assert await scenario() == 3
    assert [each for each in operations(server) if each in LIST] == []


async def test_a_process_that_only_enqueues_keeps_no_list(server: GcsServer) -> None:
    """What it would keep was last read long ago, so the next lease step lists the bucket again."""

    clock = FakeClock()
    async with bucket_queue(server, clock) as queue:
        await start_all(queue)
        clock.freeze(timedelta(minutes=11))
        await queue.queue("a")
        server.reset()
        assert len(await start_all(queue, limit=1)) == 1

    assert [each for each in operations(server) if each in LIST] == LIST


async def test_a_page_behind_the_first_of_a_long_bucket_lists_only_what_is_in_progress(server: GcsServer) -> None:
    server.store.fill("wq", [f"queued/{number:05}" for number in range(12_000)])
    async with bucket_queue(server, FakeClock()) as queue:
        cursor = (await queue.page(PageRequest(Place.QUEUED, 1000))).cursor
        server.reset()
        page = await queue.page(PageRequest(Place.QUEUED, 1000, cursor))

    assert [page.keys[0].key, page.keys[-1].key] == ["01000", "01999"]
    assert operations(server) == [LOOK]


@pytest.mark.parametrize("place", [Place.QUEUED, Place.DEAD_LETTERED])
async def test_a_page_reads_the_payloads_that_it_shows_and_no_others(server: GcsServer, place: Place) -> None:
    async with bucket_queue(server, FakeClock()) as queue:
        for key in "abcdef":
            await queue.queue(key, Options(payload=b"p"))
        if place is Place.DEAD_LETTERED:
            for owned in (await queue.lease(LeaseRequest(6, 6))).started:
                await owned.dead_letter("boom")
        first = await queue.page(PageRequest(place, 2))
        server.reset()
        await queue.page(PageRequest(place, 2, first.cursor))

    assert sum(each.startswith("get ") for each in operations(server)) == 2
