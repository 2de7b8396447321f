"""A master that dies: Sentinel makes another one, and queues find it by themselves; what replicas had is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.fakes.redis_server import HOST, RedisSentinels, RedisServer
from tests.support.redis import eligible, fresh_name, lease, lease_one, opened, until
from workqueue import StoreUnavailableError
from workqueue.backends.redis.backend import RedisQueue
from workqueue.errors import StoreUnusableError
from workqueue.testing import FakeClock


@pytest.fixture
def sentinels() -> Iterator[RedisSentinels]:
    with RedisSentinels(replicas=2) as running:
        yield running


async def produce(queue: RedisQueue, prefix: str, acknowledged: list[str], ending: asyncio.Event) -> None:
    """Enqueue key after key until `ending`."""
    number = 0
    while not ending.is_set():
        number += 1
        await queue.queue(f"{prefix}-{number}")
        acknowledged.append(f"{prefix}-{number}")


async def test_no_acknowledged_enqueue_is_lost_when_a_replica_was_waited_for(sentinels: RedisSentinels) -> None:
    acknowledged: list[str] = []
    ending = asyncio.Event()
    async with opened(sentinels.url(wait_replicas=1, timeout="30s", lease="1m")) as queue:
        producing = asyncio.gather(*(produce(queue, f"p{number}", acknowledged, ending) for number in range(8)))
        await asyncio.wait((producing,), timeout=0.3)

        await asyncio.to_thread(sentinels.fail_over)
        before = len(acknowledged)
        while len(acknowledged) < before + 100:
            await asyncio.wait((producing,), timeout=0.05)
        ending.set()
        await producing

        stored = {queued.key for queued in (await queue.enumerate(1_000_000)).queued}
        assert [key for key in acknowledged if key not in stored] == []


async def test_leases_are_renewed_and_settled_at_the_new_master(sentinels: RedisSentinels) -> None:
    clock = FakeClock()
    async with opened(sentinels.url(wait_replicas=2, timeout="30s", lease="1m"), clock) as queue:
        await queue.queue("a")
        owned = await lease_one(queue)
        await queue.queue("b")  # waits for the replicas, and so for what came before
        await asyncio.to_thread(sentinels.fail_over)

        for _ in range(30):
            await asyncio.to_thread(clock.advance, timedelta(seconds=1))

        assert not owned.lost.is_set()
        assert await owned.complete()
        assert await eligible(queue) == ["b"]


async def test_a_sleeping_dispatcher_is_woken_by_the_new_master(sentinels: RedisSentinels) -> None:
    url = sentinels.url(fresh_name(), timeout="30s", lease="1m")
    async with opened(url) as sleeper, opened(url) as producer:
        sleeping = asyncio.ensure_future(sleep_for_good(sleeper))
        await asyncio.to_thread(sentinels.fail_over)

        await producer.queue("a")

        assert await sleeping == ["a"]


async def test_a_dispatcher_that_goes_to_sleep_as_its_master_freezes_hears_the_new_one(
    sentinels: RedisSentinels,
) -> None:
    first, second, _ = sentinels.servers
    url = sentinels.url(fresh_name(), timeout="6s")
    async with opened(url) as sleeper:
        await sleeper.wait(timedelta(milliseconds=1), 1)  # from now on it hears the first master
        first.freeze()
        sleeping = asyncio.ensure_future(sleep_for_good(sleeper))
        second.ask("REPLICAOF", "NO", "ONE")
        sentinels.watch(second)
        async with opened(url) as producer:
            await until(lambda: is_heard(second))
            await producer.queue("a")

            assert await sleeping == ["a"]


async def is_heard(server: RedisServer) -> bool:
    """Whether somebody listens for wake-ups from `server`."""
    return bool(server.ask("PUBSUB", "CHANNELS", "*:wake:*"))


async def sleep_for_good(queue: RedisQueue) -> list[str]:
    """Wait and look, as a dispatcher does, until there is a key."""
    while True:
        await queue.wait(timedelta(hours=1), 1)
        started = (await lease(queue)).started
        if started:
            return [owned.key for owned in started]


async def test_too_few_replicas_are_told_to_the_producer_in_time() -> None:
    with RedisServer() as alone:
        async with opened(alone.url(wait_replicas=1, timeout="400ms")) as queue:
            with pytest.raises(StoreUnavailableError, match="only 0 of 1 replicas"):
                await queue.queue("a")
            assert await eligible(queue) == ["a"]


async def test_a_key_that_was_queued_already_is_waited_for_too() -> None:
    with RedisServer() as alone:
        async with opened(alone.url()) as hasty, opened(alone.url(wait_replicas=1, timeout="400ms")) as careful:
            await hasty.queue("a")
            with pytest.raises(StoreUnavailableError, match="only 0 of 1 replicas"):
                await careful.queue("a")


async def test_an_enqueue_outlives_that_its_master_is_made_a_replica_while_it_waits_for_one() -> None:
    with RedisServer(repl_diskless_sync_delay=0) as server, RedisServer() as other:

        async def is_waiting() -> bool:
            return int(server.ask("INFO", "clients")["blocked_clients"]) == 1

        async with opened(server.url(wait_replicas=1, timeout="60s", lease="2m")) as queue:
            enqueued = asyncio.ensure_future(queue.queue("a"))
            await until(is_waiting)
            server.ask("REPLICAOF", HOST, other.port)
            server.ask("REPLICAOF", "NO", "ONE")
            other.ask("REPLICAOF", HOST, server.port)

            await enqueued

            assert await eligible(queue) == ["a"]


async def test_a_master_that_its_replicas_have_left_is_left_too(sentinels: RedisSentinels) -> None:
    _, second, third = sentinels.servers
    async with opened(sentinels.url(wait_replicas=1, timeout="8s")) as queue:
        second.ask("REPLICAOF", "NO", "ONE")
        third.ask("REPLICAOF", HOST, second.port)
        sentinels.watch(second)  # the first one still takes the queue's writes, for nobody

        with pytest.raises(StoreUnavailableError, match="only 0 of 1 replicas"):
            await queue.queue("a")
        await queue.queue("a")

        assert second.ask("ZCARD", "{wq:default}:lane:0") == 1


async def test_a_master_that_the_sentinels_do_not_know_is_named(sentinels: RedisSentinels) -> None:
    with pytest.raises(StoreUnusableError, match="no sentinel knows a master named 'other'"):
        async with opened(sentinels.url().replace("/mymaster/", "/other/")):
            pass


async def test_a_dead_sentinel_is_passed_over(sentinels: RedisSentinels) -> None:
    first = sentinels.url().split("//")[1].split(",")[0]
    sentinels.kill_sentinel(0)
    async with opened(sentinels.url()) as queue:
        await queue.queue("a")
        assert first in sentinels.url()
        assert await eligible(queue) == ["a"]
