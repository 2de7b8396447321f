"""A queue in a cluster: one slot, found by itself, and found again when it is moved to another node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.fakes.redis_server import RedisCluster
from tests.support.redis import eligible, fresh_name, lease, lease_one, opened
from workqueue import Options, StoreUnavailableError
from workqueue.testing import FakeClock


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as running:
        yield running


async def test_all_keys_of_a_queue_are_on_one_node_and_queues_spread_over_all(cluster: RedisCluster) -> None:
    for number in range(30):
        async with opened(cluster.url(f"{fresh_name()}-{number}")) as queue:
            await queue.queue("a", Options(priority=1, payload=b"x"))
            await queue.queue("b")
            assert await eligible(queue) == ["a", "b"]

    assert all(node.ask("DBSIZE") > 0 for node in cluster.nodes)


async def test_a_queue_goes_on_where_its_slot_was_moved(cluster: RedisCluster) -> None:
    name, clock = fresh_name(), FakeClock()
    async with opened(cluster.url(name), clock) as queue:
        await queue.queue_many((f"key-{number}", Options(priority=number % 3)) for number in range(30))
        owned = await lease_one(queue)
        counts = await queue.counts()

        cluster.start_moving(f"{{wq:{name}}}").finish()

        clock.advance(timedelta(seconds=30))
        assert (await queue.counts()).queued == counts.queued == 29
        assert await owned.complete()


async def test_while_its_slot_is_being_moved_nothing_is_written_half_way(cluster: RedisCluster) -> None:
    name = fresh_name()
    async with opened(cluster.url(name)) as queue:
        await queue.queue_many((f"key-{number:02}", Options(priority=number % 5)) for number in range(50))
        (owned, *_) = (await lease(queue, limit=10)).started
        moving = cluster.start_moving(f"{{wq:{name}}}")
        calls = asyncio.gather(owned.requeue(), queue.queue("late"), lease(queue, limit=5))
        for _ in range(5):
            await asyncio.wait((calls,), timeout=0.05)
            await asyncio.to_thread(moving.move_keys, 3)
        assert not calls.done()

        await asyncio.to_thread(moving.finish)

        requeued, _, leased = await calls
        counts = await queue.counts()
        assert (requeued, len(leased.started)) == (True, 5)
        assert counts.in_progress + counts.queued + counts.not_before == 51
        assert len(await eligible(queue)) == counts.queued


async def test_a_slot_that_nobody_serves_is_named_in_time() -> None:
    with RedisCluster(cluster_require_full_coverage="no") as own:
        async with opened(own.url(timeout="500ms")) as queue:
            owner = own.node_of("{wq:default}")
            for node in own.nodes:
                node.ask("CLUSTER", "DELSLOTS", node.ask("CLUSTER", "KEYSLOT", "{wq:default}"))
            with pytest.raises(StoreUnavailableError, match="no node of the cluster serves this queue's slot"):
                await queue.queue("a")
            owner.kill()
            with pytest.raises(StoreUnavailableError):
                await queue.queue("a")
