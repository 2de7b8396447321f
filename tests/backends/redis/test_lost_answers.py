"""A connection that breaks before the answer came: the request is made again, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from tests.fakes.redis_server import shared_server
from tests.fakes.tcp_proxy import TcpProxy
from tests.support.redis import eligible, fresh_name, lease, lease_one, opened, until
from workqueue import Options, StoreUnavailableError
from workqueue.backends.redis.backend import RedisQueue
from workqueue.backends.redis.scripts import script
from workqueue.interface import OwnedInProgressKey
from workqueue.testing import FakeClock

Settle = Callable[[OwnedInProgressKey], Awaitable[bool]]

SETTLES: dict[str, Settle] = {
    "complete": lambda owned: owned.complete(),
    "requeue": lambda owned: owned.requeue(),
    "requeue after a delay": lambda owned: owned.requeue(delay=timedelta(seconds=60)),
    "dead-letter": lambda owned: owned.dead_letter("boom"),
    "release": lambda owned: owned.release(),
}


@asynccontextmanager
async def behind_a_proxy(clock: FakeClock | None = None) -> AsyncIterator[tuple[RedisQueue, TcpProxy]]:
    with TcpProxy(shared_server().port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}?name={fresh_name()}", clock) as queue:
            yield queue, proxy


async def counted(queue: RedisQueue, **expected: int) -> bool:
    """Whether these are all the keys there are."""
    counts = await queue.counts()
    names = ("queued", "not_before", "twins", "in_progress", "dead_lettered")
    return {name: getattr(counts, name) for name in names} == {name: expected.get(name, 0) for name in names}


async def test_an_enqueue_whose_answer_is_lost_is_stored_once() -> None:
    async with behind_a_proxy() as (queue, proxy):
        proxy.lose_answer_to(script("enqueue").sha)
        await queue.queue("a")

        assert proxy.lost_answers == 1
        assert await eligible(queue) == ["a"]
        assert (queue.metrics.added, queue.metrics.deduped) == (1, 0)


async def test_an_enqueue_that_was_started_before_it_is_repeated_leaves_no_twin() -> None:
    async with behind_a_proxy() as (queue, proxy), opened(shared_server().url(queue.name)) as other:
        proxy.refuse_after(script("enqueue").sha)
        enqueue = asyncio.ensure_future(queue.queue("a"))
        await until(lambda: counted(other, queued=1))
        owned = await lease_one(other)
        proxy.is_refusing = False
        await enqueue

        assert proxy.lost_answers == 1
        assert await owned.complete()
        assert await counted(other)


async def test_a_lease_step_whose_answer_is_lost_gives_the_keys_that_it_started() -> None:
    async with behind_a_proxy() as (queue, proxy):
        await queue.queue("a", Options(payload=b"with a payload", meta={"and": "meta"}, priority=7))
        await queue.queue_many((f"key-{number}", Options()) for number in range(10, 30))
        proxy.lose_answer_to(script("lease").sha)

        started = (await lease(queue, limit=10)).started

        assert proxy.lost_answers == 1
        assert [owned.key for owned in started] == ["a", *(f"key-{number}" for number in range(10, 19))]
        assert (started[0].payload, started[0].meta, started[0].attempts) == (b"with a payload", {"and": "meta"}, 1)
        assert (await queue.counts()).in_progress == 10
        assert [await owned.complete() for owned in started] == [True] * 10


async def test_a_recovery_whose_answer_is_lost_tells_of_the_orphans_once() -> None:
    clock = FakeClock()
    async with behind_a_proxy(clock) as (queue, proxy):
        await queue.queue("a")
        (await lease_one(queue)).abandon()
        clock.advance(timedelta(seconds=16))
        proxy.lose_answer_to(script("recover").sha)

        leased = await lease(queue, limit=0)

        assert proxy.lost_answers == 1
        assert [(orphan.key, orphan.attempts) for orphan in leased.recovered] == [("a", 1)]
        assert (await queue.get("a")).attempts == 1
        assert queue.metrics.expired_leases == 1


async def test_a_lease_is_renewed_on_after_a_settle_that_failed() -> None:
    clock = FakeClock()
    with TcpProxy(shared_server().port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}?name={fresh_name()}&timeout=300ms"
        async with opened(url, clock) as queue:
            await queue.queue("a")
            owned = await lease_one(queue)
            proxy.is_refusing = True
            proxy.cut()
            with pytest.raises(StoreUnavailableError):
                await owned.complete()
            proxy.is_refusing = False

            clock.advance(timedelta(minutes=1))

            assert (await lease(queue)).recovered == []
            assert await owned.complete()


@pytest.mark.parametrize("how", SETTLES)
async def test_a_settle_whose_answer_is_lost_is_applied_once_and_answers_true(how: str) -> None:
    async with behind_a_proxy(FakeClock()) as (queue, proxy):
        await queue.queue("a")
        owned = await lease_one(queue)
        await queue.queue("a", Options(priority=3))  # a twin, which a second settle would disturb
        proxy.lose_answer_to(script("settle").sha)

        assert await SETTLES[how](owned)

        assert proxy.lost_answers == 1
        counts = await queue.counts()
        assert (counts.in_progress, counts.twins, counts.queued + counts.not_before) == (0, 0, 1)
        assert counts.dead_lettered == (how == "dead-letter")
        assert not await SETTLES[how](owned)


async def test_a_start_whose_answer_is_lost_is_ours() -> None:
    async with behind_a_proxy() as (queue, proxy):
        await queue.queue("a")
        (queued,) = (await queue.enumerate()).queued
        proxy.lose_answer_to(script("start").sha)

        owned = await queued.start()

        assert proxy.lost_answers == 1
        assert owned.attempts == 1
        assert await owned.complete()


async def test_a_redrive_whose_answer_is_lost_is_done_once_and_answers_true() -> None:
    async with behind_a_proxy() as (queue, proxy):
        await queue.queue("a")
        await (await lease_one(queue)).dead_letter("boom")
        (letter,) = [letter async for letter in (await queue.enumerate()).dead_letters]
        proxy.lose_answer_to(script("dead_verb").sha)

        assert await letter.requeue()

        assert proxy.lost_answers == 1
        assert await eligible(queue) == ["a"]


async def test_a_renewal_whose_answer_is_lost_is_made_again() -> None:
    clock = FakeClock()
    async with behind_a_proxy(clock) as (queue, proxy):
        await queue.queue("a")
        owned = await lease_one(queue)
        for _ in range(10):
            proxy.lose_answer_to(script("renew").sha)
            clock.advance(timedelta(seconds=6))

        assert proxy.lost_answers == 10
        assert not owned.lost.is_set()
        assert await owned.complete()
