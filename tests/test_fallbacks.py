"""The fallbacks for backends of three verbs, where the conformance suite does not look: a backend in trouble."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from examples.three_verbs import Table, ThreeVerbs
from tests.support.dispatching import opened
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.equipment import Equipment, EquippedQueue
from workqueue.fallbacks import with_fallbacks
from workqueue.interface import WorkQueue
from workqueue.optional import (
    BulkQueue,
    ConfigurableQueue,
    CountingQueue,
    LeaseRequest,
    LeasingQueue,
    PagedQueue,
    SearchableQueue,
    WaitingQueue,
    offers,
)
from workqueue.record import Change
from workqueue.testing import FakeClock

OPTIONAL = (
    BulkQueue,
    LeasingQueue,
    CountingQueue,
    SearchableQueue,
    PagedQueue,
    WaitingQueue,
    ConfigurableQueue,
    EquippedQueue,
)


class Wrapper:
    """A queue that passes on every call, as one for logs or retries would."""

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


def test_a_queue_in_a_wrapper_that_passes_calls_on_is_still_exact_and_wakes_up() -> None:
    queue = MemoryQueue(clock=FakeClock())
    wrapper: Any = Wrapper(queue)

    assert all(offers(wrapper, protocol) for protocol in (WorkQueue, *OPTIONAL))
    assert with_fallbacks(wrapper) is wrapper
    assert Equipment.of(wrapper) is queue.equipment


def test_a_wrapper_offers_no_more_than_the_queue_in_it() -> None:
    wrapper: Any = Wrapper(ThreeVerbs(Table(), clock=FakeClock()))

    assert offers(wrapper, WorkQueue)
    assert not any(offers(wrapper, protocol) for protocol in OPTIONAL if protocol is not EquippedQueue)
    assert with_fallbacks(wrapper).exact is False


class Untyped(ThreeVerbs):
    """A backend that lets its driver's errors through."""

    refused = ""

    async def _change(self, key: str, change: Change) -> bool:
        if key == self.refused:
            raise ConnectionResetError(key)
        return await super()._change(key, change)


async def test_a_key_whose_start_raises_what_nobody_foresaw_does_not_take_those_started_before_along() -> None:
    queue = opened(Untyped(Table(), clock=FakeClock()))
    for key in ("a", "b", "c"):
        await queue.queue(key)
    queue.refused = "b"

    leased = await with_fallbacks(queue).lease(LeaseRequest(limit=10, concurrency=10))

    assert [owned.key for owned in leased.started] == ["a", "c"]
    assert [str(error) for error in leased.errors] == ["b"]


async def test_a_lease_is_renewed_on_after_a_settle_that_failed() -> None:
    clock = FakeClock()
    queue = opened(Untyped(Table(), clock=clock))
    await queue.queue("a")
    (owned,) = (await with_fallbacks(queue).lease(LeaseRequest(1, 1))).started
    queue.refused = "a"
    with pytest.raises(ConnectionResetError):
        await owned.complete()
    queue.refused = ""

    clock.advance(timedelta(minutes=1))

    assert (await with_fallbacks(queue).lease(LeaseRequest(1, 1))).recovered == []
    assert await owned.complete()
