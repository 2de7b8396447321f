"""One bucket, worked by us and by Go at the same time: each continues what the other wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import pytest

from tests.backends.gcs.go_peer import LEASE_SECONDS, GoPeer, stamp
from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.server import GcsServer
from tests.support.gcs import bucket_queue, emulator, names, start_all
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.optional import LeaseRequest
from workqueue.options import Options

Scenario = Callable[[GCSQueue], Awaitable[None]]


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


@pytest.fixture
def go(server: GcsServer) -> Iterator[GoPeer]:
    with RawClient(server.url) as client:
        yield GoPeer(client, server.clock.now)


def run(server: GcsServer, scenario: Scenario) -> None:
    """On a queue that goes by the server's clock, which tests advance."""

    async def opened() -> None:
        async with bucket_queue(server, None) as queue:
            await scenario(queue)

    asyncio.run(opened())


def test_a_key_goes_back_and_forth(server: GcsServer, go: GoPeer) -> None:
    """Queued by Go, started here, orphaned, recovered by Go, dead-lettered here, re-driven here, completed by Go."""
    go.queue("a", priority=5)

    async def scenario(queue: GCSQueue) -> None:
        (owned,) = await start_all(queue)
        assert (owned.attempts, owned.priority) == (1, 5)
        owned.abandon()
        assert not go.recover("a")
        server.clock.advance(17)
        assert go.recover("a")
        (owned,) = await start_all(queue)
        assert owned.attempts == 2
        assert await owned.dead_letter("boom")
        letter = (await queue.find("a")).dead_letter
        assert letter is not None
        assert await letter.requeue()
        assert go.start("a")
        assert go.held["a"]["metadata"]["attempts"] == "1"
        assert go.complete("a")

    run(server, scenario)
    assert names(server) == []


def test_what_go_lets_lapse_is_recovered_here(server: GcsServer, go: GoPeer) -> None:
    go.queue("a")
    go.start("a")

    async def scenario(queue: GCSQueue) -> None:
        assert (await queue.lease(LeaseRequest(9, 9))).recovered == []
        server.clock.advance(LEASE_SECONDS + 2)
        await queue.get("a")  # an answer, to hear of the server's time
        (orphan,) = (await queue.lease(LeaseRequest(0, 9))).recovered
        assert (orphan.key, orphan.attempts, orphan.owner) == ("a", 1, "go")
        assert not go.complete("a")
        assert (await queue.get("a")).attempts == 1

    run(server, scenario)


def test_go_s_dead_letters_are_re_driven_here(server: GcsServer, go: GoPeer) -> None:
    go.queue("a", priority=3)
    go.start("a")
    go.dead_letter("a")

    async def scenario(queue: GCSQueue) -> None:
        (letter,) = [letter async for letter in (await queue.enumerate(0)).dead_letters]
        assert (letter.key, letter.attempts, letter.priority, letter.error) == ("a", 1, 3, "")
        assert await letter.requeue()
        (owned,) = await start_all(queue)
        assert (owned.attempts, owned.priority) == (1, 3)
        assert await owned.complete()

    run(server, scenario)
    assert names(server) == []


def test_an_enqueue_merges_with_what_the_other_side_queued(server: GcsServer, go: GoPeer) -> None:
    async def scenario(queue: GCSQueue) -> None:
        go.queue("a", priority=5)
        await queue.queue("a", Options(priority=7, payload=b"p"))
        await queue.queue("b", Options(priority=1))
        go.queue("b", priority=9)
        owned = {each.key: each for each in await start_all(queue)}
        assert (owned["a"].priority, owned["a"].payload, owned["b"].priority) == (7, b"p", 9)

    run(server, scenario)


def test_a_floor_of_either_side_is_not_undercut_by_the_other(server: GcsServer, go: GoPeer) -> None:
    soon, late = server.clock.now() + 60, server.clock.now() + 600

    async def scenario(queue: GCSQueue) -> None:
        go.queue("a", not_before=stamp(soon), floor=True)
        await queue.queue("a")
        floor = datetime.fromtimestamp(int(late), UTC)
        await queue.queue("b", Options(not_before=floor, not_before_floor=True))
        go.queue("b")
        go.queue("b", not_before=stamp(soon), floor=True)
        assert [each.key for each in await queue.delayed()] == ["a", "b"]
        assert (await queue.get("b")).not_before == floor
        assert await start_all(queue) == []

    run(server, scenario)


def test_a_payload_and_meta_survive_an_attempt_by_go(server: GcsServer, go: GoPeer) -> None:
    async def scenario(queue: GCSQueue) -> None:
        await queue.queue("a", Options(payload=b"p", meta={"Trace": "1"}))
        go.start("a")
        go.requeue("a")
        (owned,) = await start_all(queue)
        assert (owned.payload, dict(owned.meta), owned.attempts) == (b"p", {"Trace": "1"}, 2)

    run(server, scenario)


def test_a_key_that_go_requeued_stands_at_the_back(server: GcsServer, go: GoPeer) -> None:
    """Our queued-time, which Go carries along, is older than its last-attempted and no longer counts."""

    async def scenario(queue: GCSQueue) -> None:
        await queue.queue("a")
        go.start("a")
        server.clock.advance(2)
        await queue.queue("b")
        server.clock.advance(2)
        go.requeue("a")
        snapshot = await queue.enumerate(9)
        assert [queued.key for queued in snapshot.queued] == ["b", "a"]

    run(server, scenario)


def test_of_both_starting_one_key_one_gets_it(server: GcsServer, go: GoPeer) -> None:
    async def scenario(queue: GCSQueue) -> None:
        go.queue("a")
        await queue.enumerate(1)
        assert go.start("a")
        assert await start_all(queue) == []
        go.queue("a")  # while in progress: a twin
        assert await start_all(queue) == []
        assert go.complete("a")
        assert [owned.key for owned in await start_all(queue)] == ["a"]
        assert not go.start("a")

    run(server, scenario)


def test_a_dispatcher_that_died_is_no_peer_though_go_carries_its_token_along(server: GcsServer, go: GoPeer) -> None:
    """A key that the dead one would take first waits for nobody: keys start in order."""
    keys = [f"k{number:02}" for number in range(20)]

    async def scenario(queue: GCSQueue) -> None:
        async with bucket_queue(server, None) as dying:
            await dying.queue("a")
            (owned,) = await start_all(dying)
            owned.abandon()
        server.clock.advance(17)
        assert go.recover("a")
        assert go.start("a")
        for key in keys:
            await queue.queue(key)
        started = [owned.key for _ in keys for owned in await start_all(queue, limit=1)]
        assert started == keys

    run(server, scenario)


def test_go_counts_towards_the_limit(server: GcsServer, go: GoPeer) -> None:
    for key in "abcd":
        go.queue(key)
    go.start("a")

    async def scenario(queue: GCSQueue) -> None:
        assert len(await start_all(queue, concurrency=3)) == 2

    run(server, scenario)


async def test_what_is_ours_alone_is_not_in_go_s_folders(server: GcsServer) -> None:
    """Settings, starts and slots: Go looks for names that begin with its folders, slash included."""

    async with bucket_queue(server, None, exact=True) as queue:
        await queue.queue("a")
        await start_all(queue)

    folders = ("queued/", "in-progress/", "dead-letter/")
    assert [name for name in names(server) if name.startswith(folders)] == ["in-progress/a"]
