"""Idle dispatchers cost next to nothing, and are told at once: the right one, one at a time, and never a dead one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from dispatcher import Attempt, Callback, Dispatcher, DispatcherSettings
from tests.fakes.redis_server import RedisServer
from tests.fakes.tcp_proxy import TcpProxy
from tests.support.dispatching import settle_down
from tests.support.redis import fresh_name, lease, opened, scripts_run, until
from workqueue import Options
from workqueue.backends.redis.backend import RedisQueue
from workqueue.backends.redis.scripts import script
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration

HOUR = timedelta(hours=1)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, so that its commands can be counted."""
    with RedisServer() as own:
        yield own


def waiting(server: RedisServer) -> int:
    return int(server.ask("ZCARD", "{wq:default}:waiters"))


async def asleep(server: RedisServer, sleepers: int) -> None:
    async def all_asleep() -> bool:
        return waiting(server) == sleepers

    await until(all_asleep)


def sleep(queue: RedisQueue, concurrency: int = 1) -> asyncio.Future[None]:
    return asyncio.ensure_future(queue.wait(HOUR, concurrency))


async def nothing(key: str, attempt: Attempt) -> None:
    """A callback that succeeds."""


async def test_an_idle_dispatcher_sends_less_than_two_commands_a_second(server: RedisServer) -> None:
    clock = FakeClock()
    async with opened(server.url(), clock) as queue, Dispatcher(queue, nothing, DispatcherSettings(concurrency=10)):
        await asleep(server, 1)
        before = scripts_run(server)
        for _ in range(60):
            clock.advance(timedelta(seconds=1))
            await queue.counts()  # what was sent before it has been answered then

        assert scripts_run(server) - before - 60 < 2 * 60


async def test_a_key_is_started_while_its_dispatcher_would_sleep_for_long(server: RedisServer) -> None:
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(key: str, attempt: Attempt) -> None:
        started.set_result(key)

    settings = DispatcherSettings(concurrency=10, poll_period=HOUR)
    async with opened(server.url()) as queue, Dispatcher(queue, note, settings), opened(server.url()) as producer:
        await asleep(server, 1)
        await producer.queue("a")
        assert await started == "a"


async def test_a_key_wakes_one_of_many_sleepers_who_passes_on_what_he_leaves(server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(opened(server.url())) for _ in range(8)]
        sleepers = [sleep(queue, concurrency=100) for queue in queues]
        await asleep(server, 8)

        await queues[0].queue_many([("a", Options()), ("b", Options())])
        await asyncio.wait(sleepers, return_when=asyncio.FIRST_COMPLETED)
        assert waiting(server) == 7

        woken = next(queue for queue, sleeper in zip(queues, sleepers, strict=True) if sleeper.done())
        await lease(woken, limit=1)
        assert waiting(server) == 6
        await lease(woken, limit=1)
        assert waiting(server) == 6


async def test_a_sleeper_that_died_is_passed_over(server: RedisServer) -> None:
    with TcpProxy(server.port) as proxy:
        url = server.url()
        async with opened(url.replace(str(server.port), str(proxy.port))) as dead, opened(url) as alive:
            dying = sleep(dead, concurrency=100)  # would be taken first
            await asleep(server, 1)
            living = sleep(alive, concurrency=10)
            await asleep(server, 2)
            proxy.close()
            await until(lambda: unsubscribed(server, 1))

            await alive.queue("a")

            await living
            dying.cancel()


async def unsubscribed(server: RedisServer, left: int) -> bool:
    """Whether the server has noticed that only so many listeners are left."""
    return len(server.ask("PUBSUB", "CHANNELS", "*:wake:*")) == left


async def test_a_wake_up_that_its_sleeper_has_no_use_for_is_passed_on(server: RedisServer) -> None:
    async with opened(server.url()) as leaving, opened(server.url()) as staying:
        first = sleep(leaving, concurrency=100)
        await asleep(server, 1)
        second = sleep(staying, concurrency=10)
        await asleep(server, 2)

        enqueued = asyncio.ensure_future(staying.queue("a"))
        first.cancel()  # while the wake-up may be on its way to it
        await enqueued

        await second


async def test_a_dispatcher_that_leaves_with_a_wake_up_that_it_has_not_heard_passes_it_on() -> None:
    with RedisServer() as server:
        await _leaves_unheard(server)


async def _leaves_unheard(server: RedisServer) -> None:
    async with opened(server.url()) as leaving, opened(server.url()) as staying:
        first = sleep(leaving, concurrency=100)
        await asleep(server, 1)
        second = sleep(staying, concurrency=10)
        await asleep(server, 2)

        enqueueing = Thread(target=asyncio.run, args=(enqueued(server.url(), "a"),))
        enqueueing.start()
        enqueueing.join()  # this loop stands still: the wake-up has arrived, and nobody has read it
        first.cancel()

        woken, _ = await asyncio.wait({second}, timeout=10)
        assert woken == {second}


async def enqueued(url: str, key: str) -> None:
    async with opened(url) as queue:
        await queue.queue(key)


async def test_all_who_sleep_on_one_handle_are_woken_though_one_of_them_looks_or_leaves(server: RedisServer) -> None:
    async with opened(server.url()) as queue:
        sleepers = [sleep(queue, 3)]
        await asleep(server, 1)
        sleepers += [sleep(queue, 1), sleep(queue, 2)]
        await carried_out(queue)

        await lease(queue)
        sleepers.pop().cancel()
        await carried_out(queue)

        assert server.ask("ZRANGE", "{wq:default}:waiters", 0, -1, "WITHSCORES")[1] == b"3"
        async with opened(server.url()) as producer:
            await producer.queue("a")
        await asyncio.gather(*sleepers)


async def carried_out(queue: RedisQueue) -> None:
    """What tasks that can run now will ask: the second of these goes after it."""
    await queue.counts()
    await queue.counts()


async def test_a_key_is_started_once_though_a_dispatcher_is_told_twice_to_end_as_it_comes(server: RedisServer) -> None:
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(key: str, attempt: Attempt) -> None:
        started.set_result(f"{key} at attempt {attempt.attempts}")

    async with opened(server.url()) as leaving, opened(server.url()) as staying:
        ended = asyncio.ensure_future((first := patient(leaving, note, 100)).run())  # would be woken first
        await asleep(server, 1)
        async with patient(staying, note, 10):
            await asleep(server, 2)
            enqueued = asyncio.ensure_future(staying.queue("a"))
            first.begin_drain()
            first.stop()  # a second signal, before the first has had its effect
            await asyncio.gather(enqueued, ended)

            assert await started == "a at attempt 1"


def patient(queue: RedisQueue, callback: Callback, concurrency: int) -> Dispatcher:
    """A dispatcher that starts nothing for an hour unless it is woken."""
    return Dispatcher(queue, callback, DispatcherSettings(concurrency=concurrency, poll_period=HOUR))


async def test_a_connection_that_breaks_as_its_dispatcher_is_woken_starts_the_key_once(server: RedisServer) -> None:
    started: list[tuple[str, int]] = []

    async def note(key: str, attempt: Attempt) -> None:
        started.append((key, attempt.attempts))

    with TcpProxy(server.port) as proxy:
        url = server.url().replace(str(server.port), str(proxy.port))
        async with opened(url) as queue, opened(server.url()) as producer, patient(queue, note, 10):
            await asleep(server, 1)
            proxy.lose_answer_to(script("lease").sha)
            await producer.queue("a", Options(priority=1))  # without options the wake-up would bring it along
            await until(lambda: is_empty(producer))

    assert (proxy.lost_answers, started) == (1, [("a", 1)])


async def test_a_sleeper_that_may_start_nothing_more_is_not_woken(server: RedisServer) -> None:
    async with opened(server.url()) as modest, opened(server.url()) as producer:
        await producer.queue("a")
        await lease(producer)
        sleeping = sleep(modest, concurrency=1)
        await asleep(server, 1)

        await producer.queue("b")

        assert waiting(server) == 1
        sleeping.cancel()


async def test_a_key_that_comes_due_sooner_than_anything_known_sets_a_new_alarm(server: RedisServer) -> None:
    async with opened(server.url()) as queue, opened(server.url()) as producer:
        now = queue.clock.wall_us() / 1e6
        await producer.queue("later", Options(not_before=moment(now + 600)))
        sleeping = sleep(queue)
        await asleep(server, 1)

        await producer.queue("soon", Options(not_before=moment(now + 1)))
        while not (started := (await lease(queue)).started):
            await sleeping
            sleeping = sleep(queue)
        sleeping.cancel()

        assert [owned.key for owned in started] == ["soon"]


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


async def test_a_user_without_channels_polls_and_is_told_so(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("ACL", "SETUSER", "mute", "on", ">secret", "~{wq:*", "+@all", "resetchannels")
    async with opened(server.url().replace("://", "://mute:secret@")) as queue, opened(server.url()) as producer:
        sleeping = sleep(queue)
        await asleep(server, 1)
        await producer.queue("a")
        await sleeping

    assert "no wake-ups, polling instead" in caplog.text


async def test_a_listening_connection_that_breaks_is_made_again(server: RedisServer) -> None:
    async with opened(server.url()) as queue, opened(server.url()) as producer:
        sleeping = sleep(queue)
        await asleep(server, 1)
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await sleeping

        sleeping = sleep(queue)
        await until(lambda: unsubscribed(server, 1))
        await producer.queue("a")

        await sleeping


async def test_a_listening_connection_that_died_without_a_word_is_made_again(server: RedisServer) -> None:
    with TcpProxy(server.port) as proxy:
        url = server.url(timeout="1s").replace(str(server.port), str(proxy.port))
        async with opened(url) as queue, opened(server.url()) as producer:

            async def listens() -> bool:
                await queue.wait(timedelta(milliseconds=50), 1)
                return await unsubscribed(server, 1)

            await until(listens)
            proxy.hides_ends = True
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            assert not await listens()
            await until(listens)

            sleeping = sleep(queue)
            await asleep(server, 1)
            await producer.queue("a")
            await sleeping


async def test_a_dispatcher_that_is_drained_as_it_is_woken_leaves_the_key_to_another(server: RedisServer) -> None:
    async with opened(server.url()) as leaving, opened(server.url()) as staying:
        wait = leaving.wait

        async def wait_and_drain(timeout: timedelta, concurrency: int) -> None:
            await wait(timeout, concurrency)
            dispatcher.begin_drain()

        leaving.wait = wait_and_drain  # type: ignore[method-assign]
        dispatcher = Dispatcher(leaving, nothing, DispatcherSettings(concurrency=100, poll_period=HOUR))
        async with dispatcher:
            await asleep(server, 1)
            sleeping = sleep(staying, concurrency=10)
            await asleep(server, 2)

            await staying.queue("a")
            await sleeping


async def test_dispatchers_whom_the_rate_holds_up_do_not_keep_waking_each_other(server: RedisServer) -> None:
    clock = FakeClock()
    async with opened(server.url(), clock) as one, opened(server.url(), clock) as other:
        await one.configure(Configuration(starts_per_second=1))
        await one.queue("spends what is saved up")
        await lease(one)
        sleepers = {sleep(queue, concurrency=100): queue for queue in (one, other)}
        await asleep(server, 2)

        await one.queue("a")
        (woken,), (asleep_still,) = await asyncio.wait(sleepers, return_when=asyncio.FIRST_COMPLETED)

        assert (await lease(sleepers[woken])).started == []
        assert waiting(server) == 1
        asleep_still.cancel()


async def test_a_sleeper_that_had_no_room_is_up_when_a_key_comes_due(server: RedisServer) -> None:
    clock = FakeClock()
    async with opened(server.url(), clock) as queue, opened(server.url(), clock) as idle:
        await queue.queue("a")
        (owned,) = (await lease(queue, concurrency=1)).started
        await queue.queue("later", Options(not_before=moment(clock.wall_us() / 1e6 + 5)))
        sleeping = sleep(idle, concurrency=1)
        await asleep(server, 1)

        await owned.complete()
        await settle_down()
        clock.advance(timedelta(seconds=6))

        await sleeping
        assert [started.key for started in (await lease(idle)).started] == ["later"]


async def test_a_busy_queue_sends_no_wake_ups(server: RedisServer) -> None:
    async with opened(server.url()) as queue:
        await queue.queue_many((f"key-{number}", Options()) for number in range(500))
        async with Dispatcher(queue, nothing, DispatcherSettings(concurrency=10)):
            await until(lambda: is_empty(queue))

    published = server.ask("INFO", "commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
    assert published <= 2


async def is_empty(queue: RedisQueue) -> bool:
    counts = await queue.counts()
    return counts.queued + counts.in_progress == 0


async def test_many_large_payloads_do_not_go_in_one_call_that_holds_up_everybody(server: RedisServer) -> None:
    async with opened(server.url()) as queue:
        before = scripts_run(server)
        await queue.queue_many((f"key-{number}", Options(payload=b"x" * 200_000)) for number in range(50))

        assert scripts_run(server) - before >= 5
        assert (await queue.counts()).queued == 50


async def test_concurrent_calls_travel_together(server: RedisServer) -> None:
    async with opened(server.url(fresh_name())) as queue:
        before = scripts_run(server)
        await asyncio.gather(*(queue.queue(f"key-{number}") for number in range(400)))
        enqueues = scripts_run(server) - before
        started = (await lease(queue)).started
        await asyncio.gather(*(owned.complete() for owned in started))

        assert (len(started), enqueues) == (400, 1)
        assert scripts_run(server) - before <= 1 + 1 + 3
