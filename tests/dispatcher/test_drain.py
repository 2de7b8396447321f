"""How a dispatcher ends: what runs may finish, the rest goes back unspent, and the process leaves with exit code 0."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.dispatcher.test_run_time import Stubborn, forever
from tests.support.dispatching import (
    Ledger,
    Recorder,
    SlowQueue,
    clock_of,
    memory,
    nothing,
    opened,
    pass_time,
    settle_down,
    states,
)
from tests.support.processes import Spawned, spawned
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)
REPOSITORY = Path(__file__).resolve().parents[2]


async def test_a_drain_starts_nothing_more_and_lets_callbacks_finish() -> None:
    queue, ledger = memory(), Ledger(steps=20)
    for key in ("a", "b", "c"):
        await queue.queue(key)
    dispatcher = Dispatcher(queue, ledger, DispatcherSettings(concurrency=1))
    loop = asyncio.ensure_future(dispatcher.run())
    await settle_down(5)

    await asyncio.gather(dispatcher.drain(), dispatcher.drain())
    was_over = loop.done()
    await loop

    assert (was_over, ledger.ended) == (True, {"a": 1})
    assert await states(queue, "a", "b") == {"a": "UNKNOWN", "b": "QUEUED"}


async def test_keys_that_were_being_started_when_the_drain_began_are_not_called() -> None:
    queue, ledger = opened(SlowQueue(clock=FakeClock())), Ledger()
    await queue.queue("a")
    async with Dispatcher(queue, ledger) as dispatcher:
        await settle_down(2)
        dispatcher.begin_drain()

    assert ledger.called == {}
    assert await states(queue, "a") == {"a": "QUEUED"}
    assert ((await queue.get("a")).attempts, dispatcher.metrics.outcomes["released"]) == (0, 1)


@pytest.mark.parametrize("turns", range(10))
async def test_a_stop_that_comes_while_the_store_is_asked_for_orphans_is_not_slept_through(turns: int) -> None:
    queue = opened(SlowQueue(clock=FakeClock()))
    await queue.queue("a")
    async with Dispatcher(queue, forever, DispatcherSettings(concurrency=1)) as dispatcher:
        await settle_down()
        clock_of(queue).advance(5 * SECOND)
        await settle_down(turns)
        dispatcher.stop()

    assert await states(queue, "a") == {"a": "QUEUED"}


async def test_a_dispatcher_that_drains_is_alive_however_long_that_takes() -> None:
    queue = memory()
    await queue.queue("a")
    async with Dispatcher(queue, forever, DispatcherSettings(drain_timeout=60 * SECOND)) as dispatcher:
        await settle_down()
        dispatcher.begin_drain()
        await pass_time(queue, 59 * SECOND)
        assert dispatcher.health.why_dead() == ""
        dispatcher.stop()


async def test_a_dispatcher_that_drains_is_not_ready_and_says_why() -> None:
    dispatcher = Dispatcher(memory(), nothing)
    async with dispatcher:
        await settle_down()
        before = dispatcher.health.why_unready()
        dispatcher.begin_drain()
        assert (before, dispatcher.health.why_unready()) == ("", "draining")


async def test_callbacks_get_the_drain_timeout_and_are_then_cancelled_and_released_unspent() -> None:
    queue, errors = memory(), Recorder()
    await queue.queue("a")
    dispatcher = Dispatcher(queue, forever, DispatcherSettings(drain_timeout=20 * SECOND), errors=errors)
    draining = asyncio.gather(dispatcher.run(), settle_down())
    await settle_down()

    dispatcher.begin_drain()
    await settle_down()
    await pass_time(queue, 19 * SECOND)
    before = await states(queue, "a")
    await pass_time(queue, SECOND)
    await draining

    assert before == {"a": "IN_PROGRESS"}
    assert await states(queue, "a") == {"a": "QUEUED"}
    assert ((await queue.get("a")).attempts, errors.told) == (0, [])


async def test_what_still_runs_three_seconds_after_its_cancellation_is_left_to_its_lease() -> None:
    queue, stubborn = memory(), Stubborn()
    await queue.queue("a")
    dispatcher = Dispatcher(queue, stubborn)
    loop = asyncio.ensure_future(dispatcher.run())
    await settle_down()

    dispatcher.stop()
    await settle_down()
    await pass_time(queue, 2 * SECOND)
    before = loop.done()
    await pass_time(queue, SECOND)
    await loop
    stubborn.over.set()
    await settle_down()

    assert not before
    assert await states(queue, "a") == {"a": "IN_PROGRESS"}
    clock_of(queue).advance(queue.lease_times.duration)
    async with Dispatcher(queue, nothing, DispatcherSettings(backoff=lambda attempts: SECOND)):
        await pass_time(queue, 2 * SECOND)
    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_a_callback_that_answers_when_it_is_cancelled_is_taken_at_its_word() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        try:
            await forever(key, attempt)
        except asyncio.CancelledError:
            return  # it had just finished

    await queue.queue("a")
    async with Dispatcher(queue, reconcile) as dispatcher:
        await settle_down()
        dispatcher.stop()

    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_error_events_are_flushed_at_the_end() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise ValueError("no")

    await queue.queue("a")
    async with Dispatcher(queue, reconcile, errors=errors):
        await settle_down()

    assert errors.results["sent"] == 1


async def test_an_error_in_the_block_beside_it_stops_a_dispatcher_at_once() -> None:
    queue = memory()
    await queue.queue("a")

    with pytest.raises(ZeroDivisionError):
        await _fail_beside(Dispatcher(queue, forever))

    assert await states(queue, "a") == {"a": "QUEUED"}


async def _fail_beside(dispatcher: Dispatcher) -> None:
    async with dispatcher:
        await settle_down()
        raise ZeroDivisionError


PROGRAM = """
import asyncio, contextlib, logging, time
import dispatcher
from workqueue import open_queue

async def reconcile(key, attempt):
    print("called", key, flush=True)
    await asyncio.sleep({seconds})
    print("ended", key, flush=True)

{callback}

async def main():
    async with open_queue("memory://?lease=2s&renew=500ms") as queue:
        for key in {keys!r}:
            await queue.queue(key)
        loop = dispatcher.Dispatcher(queue, reconcile, dispatcher.DispatcherSettings({settings}))
        # The next turn of the event loop comes when signals are caught.
        asyncio.get_running_loop().call_soon(lambda: print("running", flush=True))
        await dispatcher.run_until_signalled(loop)
        counts = await queue.counts()
        print("left", counts.queued, counts.in_progress, counts.max_attempts, flush=True)

logging.basicConfig(level="INFO")
asyncio.run(main())
"""


def program(keys: list[str], seconds: float, settings: str, callback: str = "") -> AbstractAsyncContextManager[Spawned]:
    text = PROGRAM.format(keys=keys, seconds=seconds, settings=settings, callback=callback)
    # asyncio complains of the task of a callback that refuses to end, and rightly so.
    return spawned([sys.executable, "-c", text], complains=callback == STUBBORN)


async def said(it: Spawned, *lines: str) -> None:
    assert [await it.said() for _ in lines] == list(lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_to_an_idle_dispatcher_ends_it(number: signal.Signals) -> None:
    async with program([], 0, "") as it:
        await said(it, "running")

        it.process.send_signal(number)

        await said(it, "left 0 0 0")
        assert await it.process.wait() == 0


async def test_sigterm_lets_a_callback_finish() -> None:
    async with program(["a", "b"], 0.5, "concurrency=1") as it:
        await said(it, "running", "called a")

        it.process.terminate()

        await said(it, "ended a", "left 1 0 0")
        assert await it.process.wait() == 0


async def test_sigterm_releases_a_callback_that_would_take_too_long() -> None:
    async with program(["a"], 60, "drain_timeout=__import__('datetime').timedelta(seconds=0.2)") as it:
        await said(it, "running", "called a")

        it.process.terminate()

        await said(it, "left 1 0 0")
        assert await it.process.wait() == 0


async def test_a_second_signal_does_not_wait_for_the_drain() -> None:
    async with program(["a"], 60, "") as it:
        await said(it, "running", "called a")

        it.process.terminate()
        await it.logged("SIGTERM: draining")
        it.process.terminate()

        await said(it, "left 1 0 0")
        assert await it.process.wait() == 0


STUBBORN = """
async def reconcile(key, attempt):
    print("called", key, flush=True)
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
"""
HANGING = """
def reconcile(key, attempt):
    print("called", key, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("callback", [STUBBORN, HANGING], ids=["coroutine", "thread"])
async def test_a_callback_that_never_ends_does_not_keep_the_process(callback: str) -> None:
    async with program(["a"], 0, "drain_timeout=__import__('datetime').timedelta(0)", callback) as it:
        await said(it, "running", "called a")

        it.process.terminate()

        await said(it, "left 0 1 1")
        assert await it.process.wait() == 0
