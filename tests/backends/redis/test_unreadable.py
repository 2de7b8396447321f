"""Records in Redis that nobody can read: the other keys go on, and operators see what was set aside."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from tests.fakes.redis_server import shared_server
from tests.support.redis import eligible, fresh_name, lease, lease_one, opened
from workqueue import KeyStatus, Options
from workqueue.backends.redis.backend import RedisQueue
from workqueue.testing import FakeClock

SPOILT = [b"", b"\x07", b"P", b"Pfive", b"not a record", bytes(36), bytes(38), bytes(37) + b"\x7f\xff\xff\xff"]


def spoil(name: str, place: str, key: str, record: bytes) -> None:
    shared_server().ask("HSET", f"{{wq:{name}}}:{place}", key, record)


async def aside(queue: RedisQueue) -> list[tuple[str, KeyStatus]]:
    return [(key.key, key.place) for key in (await queue.enumerate(0)).unreadable]


async def started_keys(queue: RedisQueue) -> list[str]:
    return [owned.key for owned in (await lease(queue)).started]


@pytest.mark.parametrize("record", SPOILT, ids=repr)
async def test_a_queued_key_that_cannot_be_read_is_set_aside_and_the_others_start(
    record: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue_many((key, Options(priority=1)) for key in ("a", "b", "c"))
        spoil(name, "records", "b", record)
        with caplog.at_level(logging.ERROR):
            assert await started_keys(queue) == ["a", "c"]

        assert [record.getMessage().partition(" is set aside")[0] for record in caplog.records] == ["key 'b'"]
        assert await aside(queue) == [("b", KeyStatus.QUEUED)]
        counts = await queue.counts()
        assert (counts.queued, counts.in_progress, counts.unreadable) == (0, 2, 1)


@pytest.mark.parametrize("record", SPOILT, ids=repr)
async def test_a_delayed_key_that_cannot_be_read_holds_up_none_that_comes_due(record: bytes) -> None:
    name, clock = fresh_name(), FakeClock()
    async with opened(shared_server().url(name), clock) as queue:
        for key in ("a", "b", "c"):
            await queue.queue(key)
            await (await lease_one(queue)).requeue(delay=timedelta(minutes=1))
        spoil(name, "records", "b", record)
        clock.advance(timedelta(minutes=2))

        assert await started_keys(queue) == ["a", "c"]
        assert await aside(queue) == [("b", KeyStatus.QUEUED)]


@pytest.mark.parametrize("running", [b"", b"\xff", b"\x01t\xff", b"\x01t\x00", b"\x01t\x00not a record"], ids=repr)
async def test_an_orphan_that_cannot_be_read_is_set_aside_and_its_twin_and_the_others_go_on(running: bytes) -> None:
    name, clock = fresh_name(), FakeClock()
    async with opened(shared_server().url(name), clock) as queue:
        await queue.queue_many((key, Options()) for key in ("a", "b"))
        for owned in (await lease(queue)).started:
            owned.abandon()
        await queue.queue("b", Options(payload=b"twin"))
        spoil(name, "running", "b", running)
        clock.advance(queue.lease_times.duration + timedelta(seconds=1))

        assert sorted(await started_keys(queue)) == ["a", "b"]
        assert await aside(queue) == [("b", KeyStatus.IN_PROGRESS)]
        assert (await queue.counts()).in_progress == 2


async def test_an_enqueue_of_a_key_that_cannot_be_read_is_kept_as_a_new_one() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue_many((key, Options(priority=3)) for key in ("a", "b"))
        spoil(name, "records", "a", b"?")

        await queue.queue_many([("a", Options(priority=5)), ("b", Options())])

        assert await eligible(queue) == ["a", "b"]
        assert (await queue.counts()).queued == 2
        assert await aside(queue) == [("a", KeyStatus.QUEUED)]


async def test_a_settle_that_meets_a_twin_which_cannot_be_read_ends_and_so_do_those_beside_it() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue_many((key, Options()) for key in ("a", "b"))
        first, second = (await lease(queue)).started
        await queue.queue("a", Options(priority=1))
        spoil(name, "records", "a", b"?")

        assert await first.requeue()
        assert await second.complete()

        assert await eligible(queue) == ["a"]
        counts = await queue.counts()
        assert (counts.queued, counts.twins, counts.unreadable) == (1, 0, 1)


async def test_a_listing_shows_what_cannot_be_read_wherever_it_lies_and_drop_removes_it() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue_many((key, Options(priority=1)) for key in ("queued", "running", "dead"))
        owned = {each.key: each for each in (await lease(queue, limit=3)).started}
        assert await owned["dead"].dead_letter("boom")
        assert await owned["queued"].release()
        for place, key in (("records", "queued"), ("running", "running"), ("dead", "dead")):
            spoil(name, place, key, b"?")

        assert [letter async for letter in (await queue.enumerate(10)).dead_letters] == []
        unreadable = (await queue.enumerate(10)).unreadable
        assert {key.key: key.place.name for key in unreadable} == {
            "queued": "QUEUED",
            "running": "IN_PROGRESS",
            "dead": "DEAD_LETTER",
        }
        assert unreadable[0].reason == "its record of 1 bytes cannot be read: '?'"
        assert [await key.drop() for key in unreadable] == [True] * 3
        assert [await key.drop() for key in unreadable] == [False] * 3
        assert await aside(queue) == []


async def test_one_key_that_cannot_be_read_is_found_as_such() -> None:
    name = fresh_name()
    async with opened(shared_server().url(name)) as queue:
        await queue.queue("a", Options(priority=1))
        spoil(name, "records", "a", b"?")

        found = await queue.find("a")
        state = await queue.get("a")

        assert found.queued is None
        assert found.unreadable is not None
        assert await found.unreadable.drop()
        assert (state.status, state.error) == (KeyStatus.UNKNOWN, "its record of 1 bytes cannot be read: '?'")
