"""Stage 5: where a router's messages come from: the payloads of a queue's keys, or anything that can be iterated.

A webhook over HTTP is in `webhook`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

from workqueue.attempt import Attempt
from workqueue.routing.messages.message import Message, Processed
from workqueue.routing.messages.router import Router

__all__ = ["Settle", "consume", "queue_callback"]

Settle = Callable[[Message, Processed | Exception], Awaitable[object]]
"""What acknowledges a message, or hands it back: called with how it was processed, or with why it failed."""


def queue_callback(router: Router) -> Callable[[str, Attempt], Awaitable[None]]:
    """A callback for a queue whose keys have the raw message as payload, and its headers as meta.

    A message that reached no handler fails as one whose handler raised: it is tried again and, with a `max_retry`, kept
    as a dead letter, since a deploy may bring the handler. A hook that is sure of better raises NonRetriableError.
    """

    async def callback(key: str, attempt: Attempt) -> None:
        await router.process(attempt.payload or b"", attempt.meta, attempt)

    return callback


async def consume(
    router: Router, messages: AsyncIterable[Message | bytes], settle: Settle, *, concurrency: int = 10
) -> None:
    """Process messages as they come, until there are no more and all have been settled.

    Args:
        router: hands them to their handlers.
        messages: an iterator over raw messages; the next one is asked for only while fewer than `concurrency` are under
            way.
        settle: called once for each message, as it ends, in any order. What it raises ends this function.
        concurrency: how many messages are under way at once, >= 1.
    """
    room = asyncio.Semaphore(concurrency)

    async def process(message: Message) -> None:
        try:
            await settle(message, await _processed(router, message))
        finally:
            room.release()

    iterator = aiter(messages)
    async with asyncio.TaskGroup() as group:
        while True:
            await room.acquire()
            try:
                received: Any = await anext(iterator)
            except StopAsyncIteration:
                return
            group.create_task(process(received if isinstance(received, Message) else Message(received)))


async def _processed(router: Router, message: Message) -> Processed | Exception:
    try:
        return await router.process(message.raw, message.headers)
    except Exception as error:  # noqa: BLE001 - it is handed to the one who settles
        return error
