"""A caller that is cancelled while it starts keys: they are handed back, unspent, at whatever request it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.fakes.gcs.faults import Fault
from tests.fakes.gcs.server import GcsServer
from tests.support.dispatching import until
from tests.support.gcs import bucket_queue, emulator, names, operations, start_all
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.optional import LeaseRequest
from workqueue.options import Options
from workqueue.testing import FakeClock

KEYS = [f"queued/{key}" for key in "abc"]


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


async def lease(queue: GCSQueue) -> Any:
    return await queue.lease(LeaseRequest(9, 9))


async def start(queue: GCSQueue) -> Any:
    return await (await queue.enumerate(1)).queued[0].start()


async def cancelled(server: GcsServer, step: Callable[[GCSQueue], Awaitable[Any]], nth: int, exact: bool) -> bool:
    """Cancel a step at its nth request, which is answered later; whether there was such a request."""
    server.reset()
    server.store.remove("wq")
    async with bucket_queue(server, FakeClock(), exact=exact) as queue:
        await queue.queue_many((name.removeprefix("queued/"), Options(payload=b"p")) for name in KEYS)
        stuck = server.faults.add(Fault(nth=nth, hang="after"))
        starting = asyncio.ensure_future(step(queue))
        await until(lambda: starting.done() or stuck.arrived.is_set())
        was_there = not starting.done()
        starting.cancel()
        await asyncio.wait((starting,))
        assert starting.cancelled() is was_there
        stuck.release()
        if was_there:
            await until(lambda: [name for name in names(server) if "settings" not in name] == KEYS)
            assert [owned.attempts for owned in await start_all(queue)] == [1, 1, 1]
    return was_there


@pytest.mark.parametrize("exact", [False, True], ids=["soft", "exact"])
@pytest.mark.parametrize("step", [lease, start])
async def test_a_cancelled_step_hands_back_what_it_started(
    server: GcsServer, step: Callable[[GCSQueue], Awaitable[Any]], exact: bool
) -> None:
    async def at_every_request() -> int:
        nth = 1
        while await cancelled(server, step, nth, exact):
            nth += 1
        return nth

    assert await at_every_request() > 5


async def test_a_step_that_is_cancelled_before_its_turn_sends_nothing(server: GcsServer) -> None:
    server.reset()
    server.store.remove("wq")

    async with bucket_queue(server, FakeClock()) as queue:
        stuck = server.faults.add(Fault("list", hang="before"))
        first, second = (asyncio.ensure_future(lease(queue)) for _ in range(2))
        await stuck.wait_async()
        second.cancel()
        await asyncio.wait((second,))
        stuck.release()
        await first

    assert operations(server).count("list in-progress") == 1


async def test_closing_waits_for_what_is_handed_back(server: GcsServer) -> None:
    server.reset()
    server.store.remove("wq")

    async with bucket_queue(server, FakeClock()) as queue:
        await queue.queue("a")
        stuck = server.faults.add(Fault("copy", hang="after"))
        starting = asyncio.ensure_future(lease(queue))
        await stuck.wait_async()
        starting.cancel()
        await asyncio.wait((starting,))
        asyncio.get_running_loop().call_later(0.05, stuck.release)

    assert names(server) == ["queued/a"]
