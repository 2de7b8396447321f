"""Taking a key from its owner by hand: renewals do not save it, and another attempt is not taken instead."""

from __future__ import annotations

from datetime import timedelta

from tests.support.dispatching import memory, pass_time
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.interface import ObservedInProgressKey, OwnedInProgressKey
from workqueue.optional import LeaseRequest
from workqueue.release import release


async def observed(queue: MemoryQueue) -> tuple[OwnedInProgressKey, ObservedInProgressKey]:
    """A key in progress, as its owner has it and as others see it."""
    await queue.queue("a")
    [owned] = (await queue.lease(LeaseRequest(1, 1))).started
    seen = (await queue.find("a")).in_progress
    assert seen is not None
    return owned, seen


async def test_a_key_whose_lease_was_renewed_since_it_was_observed_is_released_all_the_same() -> None:
    queue = memory()
    owned, seen = await observed(queue)
    await pass_time(queue, timedelta(seconds=30))

    assert not await seen.requeue()
    assert await release(queue, seen)
    assert not await owned.complete()
    assert [key.key for key in (await queue.enumerate()).queued] == ["a"]


async def test_an_attempt_that_began_after_the_one_that_was_observed_goes_on() -> None:
    queue = memory()
    owned, seen = await observed(queue)
    await owned.complete()
    await pass_time(queue, timedelta(seconds=5))
    later, _ = await observed(queue)

    assert not await release(queue, seen)
    assert await later.complete()
