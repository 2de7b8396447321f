"""A lone key is started by the wake-up of who sleeps: in one exchange, once, within the limits, with nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from threading import Thread

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.fakes.redis_server import RedisServer, shared_server
from tests.fakes.tcp_proxy import TcpProxy
from tests.support.redis import eligible, fresh_name, lease, opened, scripts_run, until
from workqueue import Options, open_queue
from workqueue.backends.redis.backend import RedisQueue
from workqueue.backends.redis.scripts import script
from workqueue.clock import Clock, from_us
from workqueue.errors import StoreError
from workqueue.interface import KeyStatus
from workqueue.optional import Leased, LeaseRequest
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration

HOUR = timedelta(hours=1)
COMES_BACK = LeaseRequest(10, 10, comes_back=True)


@asynccontextmanager
async def sleeping(
    url: str, clock: Clock | None = None, request: LeaseRequest = COMES_BACK
) -> AsyncIterator[tuple[RedisQueue, asyncio.Future[None]]]:
    """A queue whose owner asked by `request`, and sleeps."""
    async with opened(url, clock) as queue:
        await queue.lease(request)
        asleep = asyncio.ensure_future(queue.wait(HOUR, request.concurrency))
        await until(lambda: sleeps(queue.name))
        yield queue, asleep
        asleep.cancel()
        await asyncio.wait((asleep,))


async def sleeps(name: str, server: RedisServer | None = None) -> bool:
    return bool((server or shared_server()).ask("ZCARD", f"{{wq:{name}}}:waiters"))


async def is_started(queue: RedisQueue, key: str) -> bool:
    return (await queue.get(key)).status == KeyStatus.IN_PROGRESS


def keys(leased: Leased) -> list[tuple[str, int]]:
    return [(owned.key, owned.attempts) for owned in leased.started]


def url() -> str:
    return shared_server().url(fresh_name())


async def test_a_lone_key_is_started_for_who_sleeps_before_it_asks() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        await producer.queue("a")

        assert await is_started(producer, "a")
        await asleep
        leased = await queue.lease(COMES_BACK)
        assert keys(leased) == [("a", 1)]
        assert await leased.started[0].complete()
        assert (await producer.counts()).max_attempts == 0


async def test_who_does_not_come_back_is_woken_and_no_more() -> None:
    async with opened(there := url()) as producer, sleeping(there, request=LeaseRequest(10, 10)) as (_, asleep):
        await producer.queue("a")

        assert not await is_started(producer, "a")
        await asleep


async def test_an_idle_dispatcher_takes_three_scripts_for_a_key() -> None:
    async def nothing(key: str, attempt: Attempt) -> None:
        """A callback that succeeds."""

    settings = DispatcherSettings(concurrency=10, poll_period=HOUR)
    with RedisServer() as server:
        async with (
            opened(server.url()) as producer,
            opened(server.url()) as queue,
            Dispatcher(queue, nothing, settings),
        ):
            await until(lambda: sleeps("default", server))
            before = scripts_run(server)
            await producer.queue("a")
            await until(lambda: sleeps("default", server))
            assert scripts_run(server) - before == 3  # enqueue, settle, wait


@pytest.mark.parametrize(
    "items",
    [[("a", Options(priority=1))], [("a", Options()), ("b", Options())]],
    ids=["a key with options", "two keys"],
)
async def test_what_is_more_than_a_lone_key_is_left_to_the_lease_step(items: list[tuple[str, Options]]) -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        await producer.queue_many(items)

        assert not await is_started(producer, "a")
        await asleep
        assert keys(await queue.lease(COMES_BACK)) == [(key, 1) for key, _ in items]


async def test_a_key_that_would_be_beyond_the_limit_is_not_started() -> None:
    async with opened(there := url()) as producer:
        await producer.queue("running")
        await lease(producer)
        async with sleeping(there, request=LeaseRequest(10, 1, comes_back=True)) as (_, asleep):
            await producer.queue("a")

            assert not await is_started(producer, "a")
            assert not asleep.done()


@pytest.mark.parametrize("configuration", [Configuration(paused=True), Configuration(starts_per_second=100)], ids=str)
async def test_a_key_of_a_queue_that_is_paused_or_paced_is_not_started(configuration: Configuration) -> None:
    async with opened(there := url()) as producer:
        await producer.configure(configuration)
        async with sleeping(there):
            await producer.queue("a")

            assert not await is_started(producer, "a")


async def test_a_key_that_is_due_goes_before_a_lone_one() -> None:
    clock = FakeClock()
    async with opened(there := url(), clock) as producer, sleeping(there, clock) as (queue, asleep):
        await producer.queue("due", Options(not_before=from_us(clock.wall_us() + 5_000_000), priority=1))
        await asleep
        await queue.lease(COMES_BACK)
        waits = asyncio.ensure_future(queue.wait(HOUR, 10))
        await until(lambda: sleeps(queue.name))
        clock.advance(timedelta(seconds=5))
        await producer.queue("a")

        assert not await is_started(producer, "a")
        await waits
        assert keys(await queue.lease(COMES_BACK)) == [("due", 1), ("a", 1)]


async def test_a_wake_up_that_loses_what_it_brings_costs_neither_the_key_nor_an_attempt() -> None:
    clock, lost = FakeClock(), list[bytes]()
    async with opened(there := url(), clock) as producer, sleeping(there, clock) as (queue, asleep):
        queue._wakeups._brought = lost.append
        await producer.queue("a")
        await asleep
        clock.advance(timedelta(seconds=10))

        leased = await queue.lease(COMES_BACK)

        assert (keys(leased), len(lost)) == ([("a", 1)], 1)
        left = (await producer.get("a")).lease_expires
        assert left == from_us(clock.wall_us()) + queue.lease_times.duration  # as of now, and not as of its start
        assert await leased.started[0].complete()
        assert keys(await queue.lease(COMES_BACK)) == []


async def test_a_request_that_another_on_the_handle_has_sent_is_not_answered_by_a_wake_up() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        await queue.lease(COMES_BACK)
        await producer.queue("a")

        assert not await is_started(producer, "a")
        await asleep
        assert keys(await queue.lease(COMES_BACK)) == [("a", 1)]


async def test_a_request_that_was_sent_takes_no_answer_that_comes_later() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        brought = list[bytes]()
        queue._wakeups._brought = brought.append
        await producer.queue("a")
        await asleep
        leased = await queue.lease(COMES_BACK)

        queue._leasing.bring(brought[0])

        assert keys(leased) == [("a", 1)]
        assert keys(await queue.lease(COMES_BACK)) == []


async def test_who_leaves_before_he_has_heard_hands_the_key_back_unspent() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (_, asleep):
        enqueueing = Thread(target=asyncio.run, args=(enqueued(there, "a"),))
        enqueueing.start()
        enqueueing.join()  # this loop stands still: the wake-up has arrived, and nobody has read it
        asleep.cancel()

        await until(lambda: is_eligible(producer, "a"))
        assert (await producer.get("a")).attempts == 0


async def test_who_comes_back_for_nothing_hands_the_key_back_unspent() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        await producer.queue("a")
        await asleep
        assert keys(await queue.lease(LeaseRequest(0, 10))) == []

        await until(lambda: is_eligible(producer, "a"))
        assert (await producer.get("a")).attempts == 0


async def test_a_sleeper_that_died_is_started_nothing() -> None:
    with TcpProxy(shared_server().port) as proxy:
        there = url()
        behind = there.replace(str(shared_server().port), str(proxy.port))
        async with opened(there) as producer, sleeping(behind) as (queue, _):
            proxy.close()
            await until(lambda: is_deaf(queue.name))
            await producer.queue("a")

            assert not await is_started(producer, "a")


async def test_a_lease_counts_from_the_start_and_not_from_when_its_request_was_announced() -> None:
    clock = FakeClock()
    async with opened(there := url(), clock) as producer, sleeping(there, clock) as (queue, asleep):
        clock.advance(HOUR / 2)
        await producer.queue("a")
        await asleep

        (owned,) = (await queue.lease(COMES_BACK)).started

        assert not owned.lost.is_set()
        assert await owned.complete()


async def test_a_key_that_its_owner_takes_too_late_is_lost_at_once() -> None:
    clock = FakeClock()
    async with opened(there := url(), clock) as producer, sleeping(there, clock) as (queue, asleep):
        await producer.queue("a")
        await asleep
        clock.advance(timedelta(seconds=14))  # the lease lasts for 15, and its owner relies on nine tenths

        (owned,) = (await queue.lease(COMES_BACK)).started

        assert owned.lost.is_set()


async def test_who_closes_the_queue_before_he_has_heard_hands_the_key_back_unspent() -> None:
    there = url()
    async with opened(there) as producer:
        async with opened(there) as queue:
            await queue.lease(COMES_BACK)
            asleep = asyncio.ensure_future(queue.wait(HOUR, 10))
            await until(lambda: sleeps(queue.name))
            enqueueing = Thread(target=asyncio.run, args=(enqueued(there, "a"),))
            enqueueing.start()
            enqueueing.join()
            asleep.cancel()
            await asyncio.wait((asleep,))

        state = await producer.get("a")
        assert (state.status, state.attempts) == (KeyStatus.QUEUED, 0)


async def test_who_is_awake_and_closes_the_queue_hands_the_key_back_unspent() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        await producer.queue("a")
        await asleep
        await queue.__aexit__()

        assert (await producer.get("a")).attempts == 0


async def test_where_a_key_has_one_attempt_only_no_sleeper_can_use_it_up() -> None:
    once = LeaseRequest(10, 10, max_retry=1, comes_back=True)
    async with opened(there := url()) as producer, sleeping(there, request=once) as (queue, asleep):
        await producer.queue("a")
        await asleep

        assert await is_eligible(producer, "a")
        assert keys(await queue.lease(once)) == [("a", 1)]


async def test_a_request_that_failed_is_asked_again_under_its_number() -> None:
    with TcpProxy(shared_server().port) as proxy:
        there = url()
        behind = there.replace(str(shared_server().port), str(proxy.port))
        async with opened(there) as producer, sleeping(f"{behind}&timeout=300ms") as (queue, asleep):
            proxy.is_refusing = True
            queue._turns._carrier.link.drop()
            with pytest.raises(StoreError):
                await queue.lease(COMES_BACK)
            await producer.queue("a")
            proxy.is_refusing = False
            await asleep

            assert keys(await queue.lease(COMES_BACK)) == [("a", 1)]


async def test_a_wait_that_is_sent_again_announces_nothing_that_was_answered() -> None:
    with TcpProxy(shared_server().port) as proxy:
        there = url()
        behind = there.replace(str(shared_server().port), str(proxy.port))
        async with opened(there) as producer, opened(behind) as queue:
            await queue.lease(COMES_BACK)
            proxy.refuse_after(script("wait").sha)
            asleep = asyncio.ensure_future(queue.wait(HOUR, 10))
            await until(lambda: sleeps(queue.name))
            await producer.queue("a")
            proxy.is_refusing = False
            await asleep
            await producer.queue("b")

            assert not await is_started(producer, "b")
            assert keys(await queue.lease(COMES_BACK)) == [("a", 1)]
            assert keys(await queue.lease(COMES_BACK)) == [("b", 1)]


async def test_who_wants_nothing_is_given_nothing_by_a_wake_up_that_was_lost() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        queue._wakeups._brought = list[bytes]().append
        await producer.queue("a")
        await asleep

        assert keys(await queue.lease(LeaseRequest(0, 10))) == []
        await until(lambda: is_eligible(producer, "a"))


async def test_a_task_that_is_cancelled_before_it_begins_hands_back_what_a_wake_up_brought() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        await producer.queue("a")
        await asleep
        asyncio.ensure_future(queue.lease(COMES_BACK)).cancel()

        await until(lambda: is_eligible(producer, "a"))
        assert (await producer.get("a")).attempts == 0


async def test_a_message_of_somebody_else_wakes_and_breaks_nothing() -> None:
    async with opened(there := url()) as producer, sleeping(there) as (queue, asleep):
        wire = queue._wakeups._wire
        shared_server().ask("PUBLISH", f"{{wq:{queue.name}}}:wake:{queue._turns.incarnation}", "x")
        await asleep

        assert queue._wakeups._wire is wire is not None
        await producer.queue("a")
        assert keys(await queue.lease(COMES_BACK)) == [("a", 1)]


async def enqueued(there: str, key: str) -> None:
    async with open_queue(there) as queue:
        await queue.queue(key)


async def is_eligible(queue: RedisQueue, key: str) -> bool:
    return await eligible(queue) == [key]


async def is_deaf(name: str) -> bool:
    return not shared_server().ask("PUBSUB", "CHANNELS", f"{{wq:{name}}}:wake:*")
