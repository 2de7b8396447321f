"""Objects that cannot be processed are set aside, logged once, counted, shown and dropped; the other keys go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import pytest

from tests.backends.gcs.go_peer import GoPeer
from tests.fakes.gcs.faults import Fault
from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.server import GcsServer
from tests.support.gcs import bucket_queue, emulator, names, operations, start_all
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.interface import KeyStatus
from workqueue.testing import FakeClock

LONG = "x" * 1013  # queued/ and a key have 1024 bytes, which Go uses to the full; in-progress/ is five bytes longer


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


def run(server: GcsServer, scenario: Callable[[GCSQueue, FakeClock], Awaitable[None]], *, exact: bool = False) -> None:
    async def opened() -> None:
        clock = FakeClock()
        async with bucket_queue(server, clock, exact=exact) as queue:
            await scenario(queue, clock)

    asyncio.run(opened())


async def rounds(queue: GCSQueue, clock: FakeClock, count: int = 3) -> list[str]:
    """The keys that these rounds start and complete, without an error."""
    done = []
    for _ in range(count):
        for owned in await start_all(queue):
            assert await owned.complete()
            done.append(owned.key)
        clock.freeze(timedelta(seconds=31))  # the list is made anew
    return done


@pytest.mark.parametrize("exact", [False, True], ids=["soft", "exact"])
@pytest.mark.parametrize("length", [1013, 1017])
def test_a_key_of_go_s_that_is_too_long_to_be_in_progress_holds_nobody_up(
    server: GcsServer, length: int, exact: bool
) -> None:
    with RawClient(server.url) as client:
        go = GoPeer(client, server.clock.now)
        for key in ("a", "x" * length, "b"):
            go.queue(key)

    async def scenario(queue: GCSQueue, clock: FakeClock) -> None:
        assert await rounds(queue, clock) == ["a", "b"]
        assert [name for name in names(server) if "slots" in name] == []

    run(server, scenario, exact=exact)
    assert not any(entry.status >= 400 for entry in server.log.entries)


def test_go_s_keys_that_are_longer_than_ours_may_be_are_processed_and_found(server: GcsServer) -> None:
    key = "x" * 1012
    server.store.put("wq", f"queued/{key}")

    async def scenario(queue: GCSQueue, clock: FakeClock) -> None:
        assert (await queue.get(key)).status is KeyStatus.QUEUED
        (owned,) = await start_all(queue)
        await owned.dead_letter("boom")
        letter = (await queue.find(key)).dead_letter
        assert letter is not None
        assert await letter.requeue()
        assert await rounds(queue, clock) == [key]

    run(server, scenario)


def test_what_is_set_aside_is_logged_once(server: GcsServer, caplog: pytest.LogCaptureFixture) -> None:
    server.store.put("wq", f"queued/{LONG}")

    async def scenario(queue: GCSQueue, clock: FakeClock) -> None:
        await rounds(queue, clock, 5)
        await queue.enumerate()

    run(server, scenario)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "it has 1013 bytes, and one in progress has at most 1012" in line


def test_what_is_set_aside_is_counted_shown_and_dropped(server: GcsServer) -> None:
    server.store.put("wq", f"queued/{LONG}")

    async def scenario(queue: GCSQueue, clock: FakeClock) -> None:
        snapshot = await queue.enumerate()
        assert [(each.key, each.place) for each in snapshot.unreadable] == [(LONG, KeyStatus.QUEUED)]
        counts = await queue.counts()
        assert (counts.unreadable, counts.queued) == (1, 0)
        state = await queue.get(LONG)
        assert (state.status, state.error) == (KeyStatus.UNKNOWN, snapshot.unreadable[0].reason)
        found = (await queue.find(LONG)).unreadable
        assert found is not None
        assert [await found.drop(), await found.drop()] == [True, False]
        assert (await queue.counts()).unreadable == 0

    run(server, scenario)
    assert names(server) == []


def test_what_is_set_aside_and_changed_by_somebody_is_looked_at_again(server: GcsServer) -> None:
    server.store.put("wq", "queued/a")
    refusal = server.faults.add(Fault("copy", source="queued/a", status=400, times=None))

    async def scenario(queue: GCSQueue, clock: FakeClock) -> None:
        assert await rounds(queue, clock) == []
        assert (refusal.seen, (await queue.counts()).unreadable) == (1, 1)
        server.faults.clear()
        await queue.queue("b")
        assert await rounds(queue, clock) == ["b"]
        server.store.put("wq", "queued/a")
        assert await rounds(queue, clock) == ["a"]
        assert (await queue.counts()).unreadable == 0

    run(server, scenario)


@pytest.mark.parametrize("exact", [False, True], ids=["soft", "exact"])
def test_a_key_that_the_store_will_not_copy_costs_no_slot_and_fails_no_round(server: GcsServer, exact: bool) -> None:
    server.store.fill("wq", ["queued/a", "queued/b", "queued/c"])
    server.faults.add(Fault("copy", source="queued/b", status=400, times=None))

    async def scenario(queue: GCSQueue, clock: FakeClock) -> None:
        assert await rounds(queue, clock) == ["a", "c"]

    run(server, scenario, exact=exact)
    assert [name for name in names(server) if "settings" not in name] == ["queued/b"]


def test_an_orphan_that_the_store_will_not_copy_fails_no_round_and_its_twin_waits(server: GcsServer) -> None:
    server.store.fill("wq", ["in-progress/a", "queued/a", "queued/b"])
    refusal = server.faults.add(Fault("copy", source="in-progress/a", status=400, times=None))

    async def scenario(queue: GCSQueue, clock: FakeClock) -> None:
        assert await rounds(queue, clock) == ["b"]
        counts = await queue.counts()
        assert (counts.in_progress, counts.twins, counts.unreadable) == (0, 1, 1)
        waiting = asyncio.ensure_future(queue.wait(timedelta(hours=1), 9))
        assert not (await asyncio.wait((waiting,), timeout=0.05))[0]
        waiting.cancel()

    run(server, scenario)
    assert refusal.seen == 1
    assert [each for each in operations(server) if each.startswith("copy queued/a")] == []


@pytest.mark.parametrize("folder", ["queued/", "in-progress/", "dead-letter/"])
def test_the_object_of_a_folder_is_no_key(server: GcsServer, folder: str) -> None:
    """Consoles make one for each folder that somebody creates by hand."""
    server.store.put("wq", folder)

    async def scenario(queue: GCSQueue, clock: FakeClock) -> None:
        await queue.queue("a")
        assert await rounds(queue, clock) == ["a"]
        snapshot = await queue.enumerate()
        assert [letter.key async for letter in snapshot.dead_letters] == []
        assert (await queue.counts()).dead_lettered == 0

    run(server, scenario)
    assert names(server) == [folder]
