"""Two who merge into one queued object at the same time: the later one merges anew, and nothing is overwritten."""

from __future__ import annotations

import asyncio

from tests.fakes.gcs.faults import Fault
from tests.support.dispatching import until
from tests.support.gcs import bucket_queue, emulator
from workqueue.options import Options
from workqueue.testing import FakeClock


async def test_an_enqueue_that_merges_with_what_has_changed_meanwhile_merges_anew() -> None:
    clock = FakeClock()
    with emulator() as server:
        async with bucket_queue(server, clock) as queue, bucket_queue(server, clock) as other:
            await queue.queue("a")
            held_up = server.faults.add(Fault(operation="patch", hang="before"))
            slow = asyncio.ensure_future(queue.queue("a", Options(priority=3, meta={"slow": "1"})))
            await until(held_up.arrived.is_set)
            await other.queue("a", Options(priority=9, meta={"quick": "1"}))
            held_up.release()
            await slow
            state = await other.get("a")

    assert state.priority == 9
    assert dict(state.meta) == {"slow": "1", "quick": "1"}
