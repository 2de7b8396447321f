"""How many keys run at once over a bucket, softly and exactly; and which of them each of several dispatchers takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from dispatcher.loop import Dispatcher
from dispatcher.settings import DispatcherSettings
from tests.fakes.gcs.faults import Fault
from tests.fakes.gcs.requests import Call
from tests.fakes.gcs.server import GcsServer
from tests.support.dispatching import until
from tests.support.gcs import bucket_queue, emulator, names, start_all, start_one
from workqueue.attempt import Attempt
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.clock import Clock
from workqueue.errors import StoreUnusableError
from workqueue.interface import OwnedInProgressKey
from workqueue.optional import LeaseRequest
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


def live(server: GcsServer) -> int:
    return len(server.store.snapshot("wq", "in-progress/"))


async def opened(
    stack: AsyncExitStack, server: GcsServer, count: int, clock: Clock | None = None, **settings: Any
) -> list[GCSQueue]:
    queues = [bucket_queue(server, clock, **settings) for _ in range(count)]
    return [await stack.enter_async_context(queue) for queue in queues]


async def drain(server: GcsServer, queue: GCSQueue, limit: int, running: list[int]) -> int:
    """Run rounds until nothing is left; notes how many callbacks run at once over all dispatchers."""
    done, idle = 0, 0
    while idle < 3:
        started = (await queue.lease(LeaseRequest(2, limit))).started
        running[0] += len(started)
        running[1] = max(running[1], running[0])
        for owned in started:
            await asyncio.sleep(random.random() / 500)
            running[0] -= 1
            done += await owned.complete()
        idle = 0 if started or server.store.snapshot("wq", "queued/") else idle + 1
    return done


@pytest.mark.parametrize("exact", [False, True], ids=["soft", "exact"])
async def test_racing_dispatchers_run_every_key_within_the_limit(server: GcsServer, exact: bool) -> None:
    """Softly N + (D - 1) x batch at most; exactly: N, at every moment, on the bucket itself."""
    server.store.fill("wq", [f"queued/{number:03}" for number in range(60)])
    limit, dispatchers, most = 5, 4, 0

    def count(call: Call) -> None:
        nonlocal most
        most = max(most, live(server))

    async def scenario() -> int:
        running = [0, 0]
        async with AsyncExitStack() as stack:
            queues = await opened(stack, server, dispatchers, FakeClock(), exact=exact)
            server.faults.add(Fault("copy", times=None, after=count))
            done = await asyncio.gather(*(drain(server, queue, limit, running) for queue in queues))
        assert sum(done) == 60
        return running[1]

    called = await scenario()
    assert most <= (limit if exact else limit + (dispatchers - 1) * 2)
    assert called <= (limit if exact else limit + (dispatchers - 1) * 2)


async def test_surplus_is_handed_back_before_it_is_called(server: GcsServer) -> None:
    """Two dispatchers looked at the same moment and saw the same room; the newest starts give way."""
    server.store.fill("wq", [f"queued/{number}" for number in range(8)])

    async with AsyncExitStack() as stack:
        first, second = await opened(stack, server, 2, FakeClock())

        async def overtake(call: Call) -> None:
            assert len(await start_all(first, concurrency=1)) == 1

        server.faults.add(Fault("copy", prefix="in-progress/", before=overtake))
        assert await start_all(second, concurrency=1) == []
        assert live(server) == 1


async def test_slots_hold_while_the_limit_is_lowered(server: GcsServer) -> None:
    server.store.fill("wq", [f"queued/{number:02}" for number in range(40)])

    async with AsyncExitStack() as stack:
        queues = await opened(stack, server, 3, FakeClock(), exact=True)
        running = await start_all(queues[0], concurrency=10)
        for _ in range(12):
            if running:
                await running.pop(random.randrange(len(running))).complete()
            before = live(server)
            steps = [queue.lease(LeaseRequest(9, 3)) for queue in queues]
            started = [owned for step in await asyncio.gather(*steps) for owned in step.started]
            assert live(server) <= max(3, before)
            await asyncio.gather(*(owned.complete() for owned in started))


async def test_a_slot_is_free_again_however_its_attempt_ends(server: GcsServer) -> None:
    async with AsyncExitStack() as stack:
        (queue,) = await opened(stack, server, 1, FakeClock(), exact=True)
        owned: OwnedInProgressKey
        for end in ("complete", "requeue", "release", "dead_letter", "abandon"):
            owned = await start_one(queue)
            getattr(owned, end)() if end == "abandon" else await getattr(owned, end)(*["boom"] * (end == "dead_letter"))
            if end == "abandon":
                queue.clock.freeze(timedelta(seconds=16))  # type: ignore[attr-defined]
                await queue.lease(LeaseRequest(0, 1))
            assert [name for name in names(server) if "slots" in name] == []


async def test_a_bucket_with_an_exact_limit_refuses_a_dispatcher_without_it(server: GcsServer) -> None:
    async with bucket_queue(server, FakeClock(), exact=True) as exact, bucket_queue(server, FakeClock()) as soft:
        await start_all(exact)
        await soft.queue("a")  # to enqueue is no problem
        with pytest.raises(StoreUnusableError, match="exact=true"):
            await start_all(soft)


async def test_a_newer_layout_is_refused(server: GcsServer) -> None:
    server.store.put("wq", "in-progress-settings", {"layout": "2"})

    async with bucket_queue(server, FakeClock()) as queue:
        with pytest.raises(StoreUnusableError, match="upgrade"):
            await start_all(queue)


@pytest.mark.parametrize(
    "metadata", [{"concurrency": "many"}, {"starts-per-second": "-1"}, {"concurrency": "0"}, {"x": "y"}]
)
async def test_settings_that_make_no_sense_do_not_stop_the_queue(server: GcsServer, metadata: dict[str, str]) -> None:
    server.store.put("wq", "in-progress-settings", metadata)

    async with bucket_queue(server, FakeClock()) as queue:
        assert await queue.configuration() == Configuration()
        await start_one(queue)


@pytest.mark.parametrize("exact", [False, True], ids=["soft", "exact"])
async def test_several_dispatchers_hardly_ever_race_for_a_key(server: GcsServer, exact: bool) -> None:
    server.store.fill("wq", [f"queued/{number:04}" for number in range(1200)])

    async with AsyncExitStack() as stack:
        queues = await opened(stack, server, 4, exact=exact)
        running = [0, 0]
        await asyncio.gather(*(drain(server, queue, 40, running) for queue in queues))

    starts = [
        entry for entry in server.log.entries if entry.operation == "copy" and entry.name.startswith("in-progress/")
    ]
    lost = sum(entry.status != 200 for entry in starts)
    assert lost / len(starts) < 0.05


async def test_dispatchers_that_see_the_same_slots_free_each_take_their_own(server: GcsServer) -> None:
    server.store.fill("wq", [f"queued/{number:02}" for number in range(60)])

    async with AsyncExitStack() as stack:
        queues = await opened(stack, server, 2, FakeClock(), exact=True)
        for queue in queues * 2:  # so that each has seen the other
            assert len(await start_all(queue, limit=1)) == 1
        server.reset()
        started = await asyncio.gather(*(start_all(queue, limit=10, concurrency=34) for queue in queues))
        assert all(started)

    claims = [entry.status for entry in server.log.entries if entry.operation == "insert" and "slots" in entry.name]
    assert claims.count(412) <= 10  # of thirty slots: each feels its way into the other's; a race would meet at each


@pytest.mark.parametrize(("dispatchers", "left"), [(2, 2), (2, 1), (3, 3), (4, 4), (4, 2)])
async def test_dispatchers_with_a_backlog_use_the_exact_limit_to_the_full(
    server: GcsServer, dispatchers: int, left: int
) -> None:
    """Within a few steps each: at first, and again when those who know each other's slots are fewer."""
    server.store.fill("wq", [f"queued/{number:03}" for number in range(300)])

    async with AsyncExitStack() as stack:
        queues = await opened(stack, server, dispatchers, FakeClock(), exact=True)
        for active in (queues, queues, queues[:left]):
            running: list[OwnedInProgressKey] = []
            for _ in range(4):
                started = await asyncio.gather(*(start_all(queue, 40, concurrency=40) for queue in active))
                running += [owned for each in started for owned in each]
            assert len(running) == 40
            await asyncio.gather(*(owned.complete() for owned in running))


@pytest.mark.parametrize("dispatchers", [2, 3, 4])
async def test_callbacks_that_wait_become_as_many_as_the_exact_limit(server: GcsServer, dispatchers: int) -> None:
    server.store.fill("wq", [f"queued/{number:03}" for number in range(300)])
    settings = DispatcherSettings(concurrency=40)

    running, go_on = set(), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        running.add(key)
        await go_on.wait()

    async with AsyncExitStack() as stack:
        for queue in await opened(stack, server, dispatchers, exact=True):
            await stack.enter_async_context(Dispatcher(queue, callback, settings))
        await until(lambda: len(running) == 40)
        assert live(server) == 40
        go_on.set()


async def test_a_key_whose_dispatcher_is_gone_is_taken_by_another(server: GcsServer) -> None:
    """What is left to a peer does not wait for it for ever."""
    server.store.fill("wq", [f"queued/{number:03}" for number in range(50)])

    async with AsyncExitStack() as stack:
        first, second = await opened(stack, server, 2, FakeClock())
        taken = len(await start_all(first, limit=1)) + len(await start_all(second, limit=1))
        while started := await start_all(second, limit=10):
            taken += len(started)
        assert taken == 50
