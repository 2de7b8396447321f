"""The fallbacks for backends of three verbs, where the conformance suite does not look: a backend in trouble."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from examples.three_verbs import Table, ThreeVerbs
from workqueue.fallbacks import with_fallbacks
from workqueue.interface import LeaseRequest
from workqueue.record import Change
from workqueue.testing import FakeClock


class Untyped(ThreeVerbs):
    """A backend that lets its driver's errors through."""

    refused = ""

    async def _change(self, key: str, change: Change) -> bool:
        if key == self.refused:
            raise ConnectionResetError(key)
        return await super()._change(key, change)


def test_a_key_whose_start_raises_what_nobody_foresaw_does_not_take_those_started_before_along() -> None:
    async def leasing() -> None:
        queue = Untyped(Table(), clock=FakeClock())
        for key in ("a", "b", "c"):
            await queue.queue(key)
        queue.refused = "b"

        leased = await with_fallbacks(queue).lease(LeaseRequest(limit=10, concurrency=10))

        assert [owned.key for owned in leased.started] == ["a", "c"]
        assert [str(error) for error in leased.errors] == ["b"]

    asyncio.run(leasing())


def test_a_lease_is_renewed_on_after_a_settle_that_failed() -> None:
    async def settling() -> None:
        clock = FakeClock()
        queue = Untyped(Table(), clock=clock)
        await queue.queue("a")
        (owned,) = (await with_fallbacks(queue).lease(LeaseRequest(1, 1))).started
        queue.refused = "a"
        with pytest.raises(ConnectionResetError):
            await owned.complete()
        queue.refused = ""

        clock.advance(timedelta(minutes=1))

        assert (await with_fallbacks(queue).lease(LeaseRequest(1, 1))).recovered == []
        assert await owned.complete()

    asyncio.run(settling())
