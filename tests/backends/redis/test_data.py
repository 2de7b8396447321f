"""What a queue leaves in Redis: little for a key, nothing that expires but answers, the same whatever the backlog."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.redis_server import RedisServer, shared_server
from tests.support.redis import eligible, fresh_name, lease, lease_one, opened
from workqueue import Configuration, KeyStatus, Options, open_queue
from workqueue.backends.redis.backend import RedisQueue
from workqueue.errors import InvalidSettingError
from workqueue.testing import FakeClock


async def trouble(queue: RedisQueue, keys: int) -> None:
    """Take keys through everything that can become of them, and end with none left."""
    await queue.queue_many((f"key-{n}", Options(n % 5, meta={"n": str(n)}, payload=b"x" * n)) for n in range(keys))
    started = (await lease(queue, limit=keys)).started
    await asyncio.gather(*(queue.queue(owned.key, Options(priority=9)) for owned in started[::2]))
    for number, owned in enumerate(started):
        verbs = (owned.complete, owned.requeue, owned.release, lambda of=owned: of.dead_letter("boom"))
        assert await verbs[number % 4]()
    async for letter in (await queue.enumerate(0)).dead_letters:
        assert await letter.requeue()
    for owned in (await lease(queue, limit=2 * keys)).started:
        assert await owned.complete()


def stored(server: RedisServer, name: str) -> dict[str, Any]:
    """The keys in Redis of one queue, and the seconds that each has to live (-1 = for ever)."""
    found = server.ask("KEYS", f"{{wq:{name}}}:*")
    return {key.decode().split(":", 2)[2]: server.ask("TTL", key) for key in found}


async def test_a_queue_that_was_emptied_leaves_nothing_but_its_layout_and_answers_that_expire() -> None:
    name, server = fresh_name(), shared_server()
    async with opened(server.url(name), FakeClock()) as queue:
        await trouble(queue, 40)
        queue.clock.advance(timedelta(minutes=10))  # type: ignore[attr-defined]
        for owned in (await lease(queue)).started:
            assert await owned.complete()

    left = stored(server, name)
    answers = {key: seconds for key, seconds in left.items() if key.startswith("answer:")}
    assert set(left) - set(answers) == {"meta"}
    assert all(0 < seconds <= 60 for seconds in answers.values())
    meta = server.ask("HGETALL", f"{{wq:{name}}}:meta")
    assert meta.pop(b"born")
    assert meta == {b"layout": b"1", b"ready": b"0", b"twins": b"0"}


async def test_what_matters_never_expires() -> None:
    name, server = fresh_name(), shared_server()
    async with opened(server.url(name)) as queue:
        await queue.queue_many((f"key-{number}", Options(priority=number)) for number in range(10))
        await queue.queue("later", Options(not_before=queue_time(queue, 60)))
        (owned, *_) = (await lease(queue, limit=3)).started
        await owned.dead_letter("boom")
        await queue.configure(Configuration(concurrency=5))

    assert {seconds for key, seconds in stored(server, name).items() if not key.startswith("answer:")} == {-1}


def queue_time(queue: RedisQueue, seconds: float) -> datetime:

    return datetime.fromtimestamp(queue.clock.wall_us() / 1e6 + seconds, UTC)


async def test_a_queued_key_takes_little_memory() -> None:
    with RedisServer() as server:
        async with opened(server.url()) as queue:
            before = server.ask("INFO", "memory")["used_memory"]
            await queue.queue_many((f"{number:024d}", Options()) for number in range(50_000))
            plain = server.ask("INFO", "memory")["used_memory"] - before
            await queue.queue_many((f"p{number:023d}", Options(priority=1)) for number in range(50_000))
            with_priority = server.ask("INFO", "memory")["used_memory"] - before - plain

    assert plain / 50_000 < 150
    assert with_priority / 50_000 < 260


async def test_many_keys_in_progress_lie_in_tables_and_what_made_tables_of_them_is_gone() -> None:
    name, server = fresh_name(), shared_server()
    async with opened(server.url(name)) as queue:
        await queue.queue_many((f"key-{number}", Options()) for number in range(50))
        started = [*(await lease(queue, limit=20)).started, *(await lease(queue, limit=20)).started]

        running, leases = f"{{wq:{name}}}:running", f"{{wq:{name}}}:leases"
        assert [server.ask("OBJECT", "ENCODING", place) for place in (running, leases)] == [b"hashtable", b"skiplist"]
        assert sorted(server.ask("HKEYS", running)) == sorted(owned.key.encode() for owned in started)
        assert sorted(server.ask("ZRANGE", leases, 0, -1)) == sorted(owned.key.encode() for owned in started)


async def test_each_of_many_keys_that_one_step_starts_can_be_completed() -> None:
    async with opened(shared_server().url(fresh_name())) as queue:
        await queue.queue_many((f"key-{number}", Options()) for number in range(1005))
        started = (await lease(queue, limit=1005, concurrency=1005)).started

        assert await asyncio.gather(*(owned.complete() for owned in started)) == [True] * 1005


@pytest.mark.parametrize("keys", [100, 20_000])
async def test_a_step_sends_as_few_commands_with_many_keys_as_with_few(keys: int) -> None:
    with RedisServer() as server:
        async with opened(server.url()) as queue:
            await queue.queue_many((f"key-{number:05}", Options()) for number in range(keys))
            twins = (await lease(queue, limit=50)).started
            await asyncio.gather(*(queue.queue(owned.key) for owned in twins))
            server.ask("CONFIG", "RESETSTAT")
            (owned,) = (await lease(queue, limit=1)).started
            await owned.complete()
            calls = sum(stats["calls"] for stats in server.ask("INFO", "commandstats").values())

    assert calls < 60


async def test_a_key_that_is_no_utf_8_is_processed_as_it_is_found() -> None:
    name, server = fresh_name(), shared_server()
    async with opened(server.url(name)) as queue:
        server.ask("ZADD", f"{{wq:{name}}}:lane:0", 1, b"\xff\x00caf\xe9")
        server.ask("ZADD", f"{{wq:{name}}}:lanes", 0, "0")
        server.ask("HINCRBY", f"{{wq:{name}}}:meta", "ready", 1)

        (listed,) = await eligible(queue)
        owned = await lease_one(queue)

        assert (await queue.get(owned.key)).status is KeyStatus.IN_PROGRESS
        assert owned.key == listed
        assert await owned.requeue()
        assert await (await lease_one(queue)).complete()
        assert await eligible(queue) == []


async def test_lists_longer_than_a_page_are_whole_and_in_order() -> None:
    async with opened(shared_server().url(fresh_name()), FakeClock()) as queue:
        await queue.queue_many((f"key-{number:04}", Options(priority=-number // 300)) for number in range(1500))
        assert await eligible(queue) == [f"key-{number:04}" for number in range(1000)]

        started = (await lease(queue, limit=700)).started
        await asyncio.gather(*(queue.queue(owned.key) for owned in started[:450]))
        snapshot = await queue.enumerate(0)
        assert (len(snapshot.in_progress), len(snapshot.twins), len(snapshot.queued)) == (700, 450, 0)

        await asyncio.gather(*(owned.dead_letter("boom") for owned in started))
        letters = [letter.key async for letter in (await queue.enumerate(0)).dead_letters]
        assert sorted(letters) == [f"key-{number:04}" for number in range(700)]


async def test_dead_letters_may_be_dropped_while_they_are_listed() -> None:
    clock = FakeClock()
    async with opened(shared_server().url(fresh_name()), clock) as queue:
        for _ in range(5):
            await queue.queue_many((f"key-{clock.wall_us()}-{number}", Options()) for number in range(100))
            await asyncio.gather(*(owned.dead_letter("boom") for owned in (await lease(queue)).started))
            clock.advance(timedelta(seconds=1))

        dropped = [await letter.drop() async for letter in (await queue.enumerate(0)).dead_letters]

        assert dropped == [True] * 500
        assert (await queue.counts()).dead_lettered == 0


async def test_a_lease_step_may_start_more_keys_than_one_script_does() -> None:
    async with opened(shared_server().url(fresh_name())) as queue:
        await queue.queue_many((f"key-{number:04}", Options()) for number in range(2500))
        leased = await lease(queue, limit=2400, concurrency=2300)

        assert [owned.key for owned in leased.started] == [f"key-{number:04}" for number in range(2300)]
        assert len({owned.lease.token for owned in leased.started}) == 2300  # type: ignore[attr-defined]
        assert all(await asyncio.gather(*(owned.complete() for owned in leased.started)))


async def test_more_keys_come_due_at_once_than_one_script_promotes_and_still_start_in_order() -> None:
    clock = FakeClock()
    async with opened(shared_server().url(fresh_name()), clock) as queue:
        due = queue_time(queue, 60)
        await queue.queue_many((f"key-{n:04}", Options(priority=n % 7, not_before=due)) for n in range(2500))
        clock.advance(timedelta(seconds=61))

        started = [owned.key for owned in (await lease(queue, limit=10)).started]

        assert started == [f"key-{number:04}" for number in range(2500) if number % 7 == 6][:10]


async def test_more_orphans_than_one_script_takes_are_all_recovered_in_one_lease_step() -> None:
    clock = FakeClock()
    async with opened(shared_server().url(fresh_name()), clock) as queue:
        await queue.queue_many((f"key-{number:04}", Options()) for number in range(1200))
        for owned in (await lease(queue, limit=1200, concurrency=1200)).started:
            owned.abandon()
        clock.advance(timedelta(seconds=16))

        leased = await lease(queue, limit=0)

        assert len({orphan.key for orphan in leased.recovered}) == 1200
        counts = await queue.counts()
        assert (counts.in_progress, counts.queued) == (0, 1200)


async def test_large_payloads_go_in_several_calls_and_come_back_whole() -> None:
    payload = bytes(range(256)) * 1000
    async with opened(shared_server().url(fresh_name())) as queue:
        await asyncio.gather(*(queue.queue(f"key-{number:02}", Options(payload=payload)) for number in range(40)))

        leased = await lease(queue)

        assert [owned.payload for owned in leased.started] == [payload] * 40


def test_an_owner_is_at_most_255_bytes() -> None:

    with pytest.raises(InvalidSettingError, match="owner has at most 255 bytes, not 256"):
        open_queue("redis://localhost", owner="é" * 128)
