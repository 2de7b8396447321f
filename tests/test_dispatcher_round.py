"""What one dispatch round does: start within the limits, call, settle, tell."""

from __future__ import annotations

import asyncio

import dispatcher
from dispatcher import Attempt
from tests.dispatching import memory, states
from workqueue import KeyStatus, Options


def test_a_round_calls_each_key_once_and_completes_it() -> None:
    async def scenario() -> None:
        queue, called = memory(), []

        async def reconcile(key: str, attempt: Attempt) -> None:
            called.append((key, attempt.attempts, attempt.payload))

        await queue.queue("a", Options(payload=b"x"))
        await queue.queue("b")
        await dispatcher.handle(queue, concurrency=10, batch_size=5, callback=reconcile, max_retry=3)

        assert called == [("a", 1, b"x"), ("b", 1, None)]
        assert await states(queue, "a", "b") == {"a": KeyStatus.UNKNOWN, "b": KeyStatus.UNKNOWN}

    asyncio.run(scenario())
