"""Every request of every transition fails, in every way in turn; a fresh process then finds the key neither lost nor
stuck, and nobody has it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.fakes.gcs.faults import Fault
from tests.fakes.gcs.server import GcsServer
from tests.support.dispatching import until
from tests.support.gcs import (
    FEW,
    bucket_queue,
    emulator,
    names,
    operations,
    run_everything,
    start_all,
    start_one,
    unfinished,
)
from workqueue.backends.gcs import aftermath
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.errors import StartLostError, StoreError
from workqueue.optional import LeaseRequest
from workqueue.options import Options
from workqueue.testing import FakeClock

Prepare = Callable[[GCSQueue, FakeClock], Awaitable[Any]]
Act = Callable[[GCSQueue, Any], Awaitable[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


async def nothing(queue: GCSQueue, clock: FakeClock) -> None:
    """The bucket is empty."""


async def queued(queue: GCSQueue, clock: FakeClock) -> None:
    await queue.queue("a", Options(payload=b"p"))


async def listed(queue: GCSQueue, clock: FakeClock) -> Any:
    await queue.queue("a", Options(payload=b"p"))
    return (await queue.enumerate(1)).queued[0]


async def running(queue: GCSQueue, clock: FakeClock) -> Any:
    await queue.queue("a", Options(payload=b"p", priority=3))
    return (await start_all(queue, FEW, FEW))[0]


async def running_with_twin(queue: GCSQueue, clock: FakeClock) -> Any:
    owned = await running(queue, clock)
    await queue.queue("a", Options(priority=7))
    return owned


async def failed_before(queue: GCSQueue, clock: FakeClock) -> Any:
    await (await running(queue, clock)).dead_letter("first")
    return await running(queue, clock)


async def orphaned(queue: GCSQueue, clock: FakeClock) -> None:
    (await running_with_twin(queue, clock)).abandon()
    clock.freeze(timedelta(seconds=16))


async def dead(queue: GCSQueue, clock: FakeClock) -> Any:
    await (await running(queue, clock)).dead_letter("boom")
    return (await queue.find("a")).dead_letter


async def dead_and_queued(queue: GCSQueue, clock: FakeClock) -> Any:
    letter = await dead(queue, clock)
    await queue.queue("a")
    return letter


@dataclass(frozen=True)
class Transition:
    """How to get there, what is done, and whether the key must run afterwards: even if the transition was reported as
    done, or else if it was reported at all.
    """

    prepare: Prepare
    act: Act
    must_run: bool = True
    if_reported: bool = False


TRANSITIONS = {
    "enqueue": Transition(nothing, lambda queue, _: queue.queue("a", Options(payload=b"q")), if_reported=True),
    "merge": Transition(queued, lambda queue, _: queue.queue("a", Options(priority=5))),
    "merge a payload": Transition(queued, lambda queue, _: queue.queue("a", Options(payload=b"q"))),
    "lease": Transition(queued, lambda queue, _: queue.lease(LeaseRequest(1, 1))),
    "start": Transition(listed, lambda queue, handle: handle.start()),
    "complete": Transition(running, lambda queue, owned: owned.complete(), must_run=False),
    "complete with a dead letter": Transition(failed_before, lambda queue, owned: owned.complete(), must_run=False),
    "complete with a twin": Transition(running_with_twin, lambda queue, owned: owned.complete()),
    "requeue": Transition(running, lambda queue, owned: owned.requeue()),
    "requeue with a delay": Transition(running, lambda queue, owned: owned.requeue(delay=timedelta(seconds=30))),
    "requeue into a twin": Transition(running_with_twin, lambda queue, owned: owned.requeue()),
    "release": Transition(running, lambda queue, owned: owned.release()),
    "release into a twin": Transition(running_with_twin, lambda queue, owned: owned.release()),
    "dead-letter": Transition(running, lambda queue, owned: owned.dead_letter("boom"), must_run=False),
    "dead-letter with a twin": Transition(running_with_twin, lambda queue, owned: owned.dead_letter("boom")),
    "recover": Transition(orphaned, lambda queue, _: queue.lease(LeaseRequest(0, 1))),
    "give up an orphan": Transition(orphaned, lambda queue, _: queue.lease(LeaseRequest(0, 1, max_retry=1))),
    "re-drive": Transition(dead, lambda queue, letter: letter.requeue()),
    "re-drive into the queue": Transition(dead_and_queued, lambda queue, letter: letter.requeue()),
}

TROUBLE: dict[str, dict[str, Any]] = {
    "refused before it is processed": {"drop": "before"},
    "processed and the answer lost": {"drop": "after"},
    "busy": {"status": 503},  # and any other status that is worth another try: they take the same way
    "unavailable from there on": {"status": 503, "times": None},
    "lost from there on": {"drop": "after", "times": None},
}


Each = Callable[[Callable[[int], Awaitable[None]], Transition, bool], None]


@pytest.fixture(scope="module")
def at_each_request(server: GcsServer) -> Each:
    """Runs a test for each request that a transition takes when nothing goes wrong: 1, 2, and so on."""
    counts: dict[tuple[int, bool], int] = {}

    def empty() -> None:
        server.reset()
        server.store.remove("wq")

    async def count(transition: Transition, exact: bool) -> int:
        empty()
        clock = FakeClock()
        async with bucket_queue(server, clock, exact=exact) as queue:
            handle = await transition.prepare(queue, clock)
            server.log.reset()
            await transition.act(queue, handle)
            return len(operations(server))

    async def each(test: Callable[[int], Awaitable[None]], transition: Transition, exact: bool) -> None:
        case = id(transition), exact
        if case not in counts:
            counts[case] = await count(transition, exact)
        for nth in range(1, counts[case] + 1):
            empty()
            await test(nth)

    return lambda test, transition, exact: asyncio.run(each(test, transition, exact))


async def check_the_key(server: GcsServer, clock: FakeClock, exact: bool, must_run: bool) -> None:
    """A fresh process finds the key, once, and can run it to its end."""
    given_up = "dead-letter/a" in names(server)
    async with bucket_queue(server, clock, exact=exact) as fresh:
        done = await run_everything(server, fresh, clock)
    assert set(done) <= {"a"}
    assert done or given_up or not must_run
    assert unfinished(server) == []


@pytest.mark.parametrize("exact", [False, True], ids=["", "exact"])
@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE.keys())
@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_no_request_that_fails_loses_a_key(
    server: GcsServer, at_each_request: Each, transition: Transition, trouble: dict[str, Any], exact: bool
) -> None:
    async def fail(nth: int) -> None:
        clock = FakeClock()
        async with bucket_queue(server, clock, exact=exact) as queue:
            handle = await transition.prepare(queue, clock)
            fault = server.faults.add(Fault(nth=nth, **trouble))
            applied: Any = None
            reported = False
            with contextlib.suppress(StoreError, StartLostError):
                applied = await transition.act(queue, handle)
                reported = True
            assert fault.seen >= nth
            server.faults.clear()
            if applied is None and hasattr(handle, "complete"):  # as a dispatcher does whose settle failed
                applied = await transition.act(queue, handle)
            assert applied is not False
        await check_the_key(server, clock, exact, transition.must_run and (reported or not transition.if_reported))

    at_each_request(fail, transition, exact)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_status_that_may_pass_is_tried_again(server: GcsServer, status: int) -> None:
    server.reset()
    server.store.remove("wq")

    async with bucket_queue(server, FakeClock()) as queue:
        fault = server.faults.add(Fault(status=status))
        await queue.queue("a")

    assert (fault.seen, unfinished(server)) == (2, ["queued/a"])


@pytest.mark.parametrize("exact", [False, True], ids=["", "exact"])
@pytest.mark.parametrize("lands", ["never", "late"])
@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_no_process_that_dies_takes_a_key_along(
    server: GcsServer,
    at_each_request: Each,
    transition: Transition,
    lands: str,
    exact: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At every request of every transition; what it had sent last is lost, or is processed once another took over."""
    monkeypatch.setattr(aftermath, "_PATIENCE_SECONDS", 0)  # who dies waits for no answer

    async def die(nth: int) -> None:
        clock = FakeClock()
        queue = bucket_queue(server, clock, exact=exact)
        await queue.__aenter__()
        handle = await transition.prepare(queue, clock)
        fault = server.faults.add(Fault(nth=nth, hang="before", drop="before" if lands == "never" else ""))
        dying = asyncio.ensure_future(transition.act(queue, handle))
        await fault.wait_async()
        dying.cancel()
        await asyncio.wait({dying})
        await queue.__aexit__(None, None, None)
        if lands == "late":
            async with bucket_queue(server, clock, exact=exact) as other:
                clock.freeze(timedelta(seconds=16))
                await other.lease(LeaseRequest(0, 1))
        fault.release()
        await until(lambda: any(entry.fault for entry in server.log.entries))  # it has been carried out, or not
        await check_the_key(server, clock, exact=exact, must_run=transition.must_run and not transition.if_reported)

    at_each_request(die, transition, exact)


@pytest.mark.parametrize("verb", ["complete", "requeue", "release", "dead-letter"])
def test_an_owner_that_was_overtaken_changes_nothing_at_any_request(
    server: GcsServer, at_each_request: Each, verb: str
) -> None:
    """While its settle is under way another process recovers the key and starts it again."""

    async def overtake(nth: int) -> None:
        clock = FakeClock()
        async with bucket_queue(server, clock) as queue, bucket_queue(server, clock) as other:
            owned = await start_one(queue)
            fault = server.faults.add(Fault(nth=nth, hang="before"))
            settling = asyncio.ensure_future(TRANSITIONS[verb].act(queue, owned))
            await fault.wait_async()
            clock.freeze(timedelta(seconds=16))
            await other.lease(LeaseRequest(0, 1))
            clock.freeze(timedelta(minutes=1))
            current = await start_all(other)
            fault.release()
            assert await settling is False
            for each in current:
                assert await each.complete()

    at_each_request(overtake, TRANSITIONS[verb], False)
