"""Where a queue is open: what the conformance suite, which has one running loop, cannot show."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from examples.three_verbs import Table, ThreeVerbs
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import QueueClosedError
from workqueue.fallbacks import FullQueue, with_fallbacks
from workqueue.home import Home
from workqueue.interface import WorkQueue
from workqueue.paging import PageRequest, Place
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration


async def _entered(queue: WorkQueue) -> None:
    await queue.__aenter__()


def test_a_queue_whose_loop_has_ended_is_refused_on_the_next_loop_of_the_same_thread() -> None:
    queue = MemoryQueue(clock=FakeClock())
    asyncio.run(_entered(queue))

    with pytest.raises(QueueClosedError, match="another event loop"):
        asyncio.run(queue.queue("a"))


def test_a_queue_whose_loop_stands_still_is_refused_on_another_loop_of_the_same_thread() -> None:
    queue, first = MemoryQueue(clock=FakeClock()), asyncio.new_event_loop()
    first.run_until_complete(_entered(queue))

    with pytest.raises(QueueClosedError, match="another event loop"):
        asyncio.run(queue.queue("a"))

    first.run_until_complete(queue.queue("a"))
    first.close()


async def test_a_refusal_says_what_is_wrong() -> None:
    home = Home()
    never = str(home.refusal())
    home.enter()
    elsewhere = str(await asyncio.to_thread(home.refusal))
    home.leave()

    assert "never entered" in never
    assert "another event loop or thread" in elsewhere
    assert str(home.refusal()) == "The queue is closed; open it again with `open_queue`."


async def test_a_queue_is_entered_once() -> None:
    queue = MemoryQueue(clock=FakeClock())
    async with queue:
        with pytest.raises(QueueClosedError, match="entered once"):
            await _entered(queue)
    with pytest.raises(QueueClosedError, match="entered once"):
        await _entered(queue)


OWN: dict[str, Callable[[FullQueue], Awaitable[object]]] = {
    "queue_many": lambda queue: queue.queue_many([]),
    "delayed": lambda queue: queue.delayed(),
    "page": lambda queue: queue.page(PageRequest(Place.DELAYED)),
    "wait": lambda queue: queue.wait(timedelta(days=1), 1),
    "configure": lambda queue: queue.configure(Configuration()),
    "configuration": lambda queue: queue.configuration(),
}


@pytest.mark.parametrize("verb", OWN)
async def test_what_the_fallbacks_do_themselves_is_refused_too(verb: str) -> None:
    arguments: dict[str, tuple[object, ...]] = {
        "queue_many": ([],),
        "page": (PageRequest(Place.DELAYED),),
        "wait": (timedelta(days=1), 1),
        "configure": (Configuration(),),
    }
    queue = with_fallbacks(ThreeVerbs(Table(), clock=FakeClock()))

    with pytest.raises(QueueClosedError, match="never entered"):
        await getattr(queue, verb)(*arguments.get(verb, ()))
