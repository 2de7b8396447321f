"""Where a controller's errors go: to several places, and what became of them is counted in its metrics."""

from __future__ import annotations

import asyncio

from dispatcher import Dispatcher
from dispatcher.controller.events import AllErrors
from dispatcher.testing import CollectedEvents
from tests.support.dispatching import memory
from workqueue.attempt import Attempt
from workqueue.errors import NonRetriableError


async def test_events_sent_to_several_places_are_counted_when_they_are_sent() -> None:
    queue, places, called = memory(), [CollectedEvents(), CollectedEvents()], asyncio.Event()

    async def reconcile(key: str, attempt: Attempt) -> None:
        called.set()
        raise NonRetriableError("no")

    await queue.queue("a")
    async with Dispatcher(queue, reconcile, errors=AllErrors(places)) as running:
        await called.wait()

    assert [len(place.events) for place in places] == [1, 1]
    assert dict(running.metrics.events) == {"sent": 2, "failed": 0, "dropped": 0}
