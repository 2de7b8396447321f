"""A queue is open on the event loop that entered it, until it is closed: a call from elsewhere is refused, undone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

from workqueue.conformance.case import Case, expect
from workqueue.conformance.scenario import Need, scenario
from workqueue.errors import QueueClosedError
from workqueue.interface import WorkQueue
from workqueue.optional import (
    BulkQueue,
    ConfigurableQueue,
    CountingQueue,
    LeaseRequest,
    LeasingQueue,
    SearchableQueue,
    WaitingQueue,
    offers,
)
from workqueue.options import Options
from workqueue.throttle import Configuration

_REAL_SECONDS = 5
_Verb = Callable[[Any], Awaitable[object]]

_VERBS: dict[Any, dict[str, _Verb]] = {
    WorkQueue: {
        "queue": lambda queue: queue.queue("z"),
        "queue with options": lambda queue: queue.queue("z", Options(payload=b"p")),
        "enumerate": lambda queue: queue.enumerate(10),
        "get": lambda queue: queue.get("a"),
    },
    BulkQueue: {
        "queue_many": lambda queue: queue.queue_many([("z", Options())]),
        "queue_many of nothing": lambda queue: queue.queue_many([]),
    },
    LeasingQueue: {"lease": lambda queue: queue.lease(LeaseRequest(limit=1, concurrency=1000))},
    CountingQueue: {"counts": lambda queue: queue.counts()},
    SearchableQueue: {"find": lambda queue: queue.find("a"), "delayed": lambda queue: queue.delayed(10)},
    WaitingQueue: {"wait": lambda queue: queue.wait(timedelta(seconds=1), 1000)},
    ConfigurableQueue: {
        "configure": lambda queue: queue.configure(Configuration(paused=True)),
        "configuration": lambda queue: queue.configuration(),
    },
}
_OF_HANDLES: dict[str, dict[str, _Verb]] = {
    "queued": {"start": lambda key: key.start(), "drop": lambda key: key.drop()},
    "owned": {
        "complete": lambda key: key.complete(),
        "requeue": lambda key: key.requeue(),
        "dead_letter": lambda key: key.dead_letter("e"),
        "release": lambda key: key.release(),
    },
    "observed": {"requeue": lambda key: key.requeue(), "dead_letter": lambda key: key.dead_letter("e")},
    "dead": {"requeue": lambda key: key.requeue(), "drop": lambda key: key.drop()},
}


@scenario()
async def a_queue_that_was_never_entered_refuses_every_verb(case: Case) -> None:
    await case.enqueue("a")
    never = case.target.open(case.name, clock=case.clock if case.target.fake_clock else None, owner="")
    for name, verb in _verbs_of(never):
        await _refused(name, _here(verb, never))
    await _nothing_changed(case)


@scenario()
async def a_queue_that_was_closed_refuses_every_verb(case: Case) -> None:
    await case.enqueue("a")
    closing = await case.peer()
    raw = case.raw
    handles = {"queued": (await closing.enumerate(1)).queued[0]}
    await case.close(closing)
    for name, verb in _verbs_of(raw):
        await _refused(name, _here(verb, raw))
    await _refuse_handles(handles, _here)
    await _nothing_changed(case)


@scenario(Need.CLOCK)
async def a_queue_refuses_another_loop(case: Case) -> None:
    await case.enqueue("a")
    raw = case.raw
    for name, verb in _verbs_of(raw):
        await _refused(name, _elsewhere(verb, raw))
    await _nothing_changed(case)


@scenario(Need.CLOCK)
async def a_handle_refuses_another_loop(case: Case) -> None:
    await case.failed("d")
    owned = await case.started("o")
    await case.enqueue("q")
    handles = {
        "queued": await case.listed("q"),
        "owned": owned,
        "observed": await case.observed("o"),
        "dead": await case.dead_letter("d"),
    }
    before = await case.everything()
    await _refuse_handles(handles, _elsewhere)
    expect(await case.everything(), before, "everything")
    case.lapse()
    expect(owned.lost.is_set(), False, "whether the lease was let go")
    expect(await owned.complete(), True, "complete() on the loop that entered the queue")


async def _nothing_changed(case: Case) -> None:
    """The case's own handle, which is open here, still finds the key that was enqueued, and no other."""
    listed = await case.queue.enumerate(10)
    expect([(queued.key, queued.attempts) for queued in listed.queued], [("a", 0)], "the queued keys")
    expect(await case.queue.configuration(), Configuration(), "the stored settings")


def _verbs_of(queue: object) -> Iterator[tuple[str, _Verb]]:
    for protocol, verbs in _VERBS.items():
        if offers(queue, protocol):
            yield from verbs.items()


async def _refuse_handles(handles: dict[str, Any], call: Callable[[_Verb, Any], Awaitable[object]]) -> None:
    for place, handle in handles.items():
        for name, verb in _OF_HANDLES[place].items():
            await _refused(f"{name} of a {place} key", call(verb, handle))


async def _refused(name: str, step: Awaitable[object]) -> None:
    try:
        answer = await step
    except QueueClosedError:
        return
    except Exception as error:
        raise AssertionError(f"{name}: found {error!r}, expected QueueClosedError") from error
    raise AssertionError(f"{name}: found the answer {answer!r}, expected QueueClosedError")


async def _here(verb: _Verb, subject: Any) -> object:
    async with asyncio.timeout(_REAL_SECONDS):  # one that does not refuse may wait for ever
        return await verb(subject)


async def _elsewhere(verb: _Verb, subject: Any) -> object:
    """The answer of `verb` when it is called on an event loop of its own, in another thread."""
    return await asyncio.to_thread(asyncio.run, _here(verb, subject))
