"""Where messages come from: keys of a queue, and anything that can be iterated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import dispatcher
from tests.support.dispatching import Recorder, dead_letters, memory, settle_down, state, states
from workqueue import Options, QueueKey, QueueKeys, RequeueAfter
from workqueue.routing import (
    Message,
    Processed,
    Router,
    Source,
    consume,
    fields,
    has_fields,
    inspect_cloud_event,
    queue_callback,
)
from workqueue.routing.errors import NoSourceError

MINUTE = timedelta(minutes=1)


def raw(type_: str, payload: object = None) -> bytes:
    return json.dumps({"type": type_, "payload": payload}).encode()


class Handlers:
    """A router whose handlers note their payloads, fail, or wait until they are let go."""

    def __init__(self) -> None:
        self.router = Router(Source("envelope", has_fields("type"), fields("type", "payload")))
        self.seen: list[Any] = []
        self.running = 0
        self.go = asyncio.Event()
        self.router.proc("note")(self.note)
        self.router.proc("fail")(self.fail)
        self.router.proc("wait")(self.wait)

    async def note(self, payload: object) -> None:
        self.seen.append(payload)

    async def fail(self, payload: object) -> None:
        raise ValueError(payload)

    async def wait(self, payload: object) -> None:
        self.running += 1
        await self.go.wait()


async def test_a_keys_payload_is_a_message_and_a_failure_keeps_the_key() -> None:
    queue, handlers = memory(), Handlers()
    await queue.queue("1", Options(payload=raw("note", 7)))
    await queue.queue("2", Options(payload=raw("fail", "no")))

    await dispatcher.handle(queue, callback=queue_callback(handlers.router), max_retry=1)

    assert handlers.seen == [7]
    assert await states(queue, "1", "2") == {"1": "UNKNOWN", "2": "DEAD_LETTER"}
    assert await dead_letters(queue) == {"2": "ValueError: no"}


@pytest.mark.parametrize("payload", [None, b"", b"no JSON", raw("other")], ids=str)
async def test_a_message_that_reaches_no_handler_is_kept_and_tried_again(payload: bytes | None) -> None:
    queue, events = memory(), Recorder()
    await queue.queue("1", Options(payload=payload))

    await dispatcher.handle(queue, callback=queue_callback(Handlers().router), errors=events)

    assert (await state(queue, "1")).attempts == 1
    assert [event.failure.action for event in events.events] == ["requeued"]


async def test_a_handler_may_ask_for_a_requeue_or_for_more_keys() -> None:
    queue, router = memory(), Handlers().router

    @router.proc("later")
    async def later(payload: object) -> None:
        raise RequeueAfter(MINUTE)

    @router.proc("more")
    async def more(payload: object) -> QueueKeys:
        return QueueKeys(QueueKey("next"))

    await queue.queue("1", Options(payload=raw("later")))
    await queue.queue("2", Options(payload=raw("more")))
    await dispatcher.handle(queue, callback=queue_callback(router))

    assert await states(queue, "1", "2", "next") == {"1": "QUEUED", "2": "UNKNOWN", "next": "QUEUED"}
    assert (await state(queue, "1")).not_before is not None


async def test_the_headers_of_a_message_travel_in_the_meta_of_its_key() -> None:
    queue, router, seen = memory(), Router(), []
    router.group(inspect_cloud_event, Source("events", has_fields("type"), fields("type", "data")))

    @router.proc("order.new")
    async def new(payload: dict[str, int]) -> None:
        seen.append(payload)

    meta = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "order.new"}
    await queue.queue("1", Options(payload=b'{"n": 1}', meta=meta))
    await dispatcher.handle(queue, callback=queue_callback(router))

    assert seen == [{"n": 1}]


async def iterated(*messages: Message | bytes) -> AsyncIterator[Message | bytes]:
    for message in messages:
        yield message


class Settled:
    """What became of each message."""

    def __init__(self) -> None:
        self.of: dict[bytes, Processed | Exception] = {}

    async def __call__(self, message: Message, ended: Processed | Exception) -> None:
        self.of[message.raw] = ended


async def test_each_message_of_an_iterator_is_settled_with_what_became_of_it() -> None:
    handlers, settled = Handlers(), Settled()
    good, bad = raw("note", 1), raw("fail", "no")

    await consume(handlers.router, iterated(good, bad, Message(b"no JSON")), settled)

    assert handlers.seen == [1]
    assert settled.of[good] == Processed("envelope", "note", {})
    assert repr(settled.of[bad]) == "ValueError('no')"
    assert isinstance(settled.of[b"no JSON"], NoSourceError)


async def test_no_more_messages_are_taken_than_may_be_under_way() -> None:
    handlers, settled, taken = Handlers(), Settled(), []

    async def counted() -> AsyncIterator[bytes]:
        for number in range(5):
            taken.append(number)
            yield raw("wait", number)

    consuming = asyncio.create_task(consume(handlers.router, counted(), settled, concurrency=2))
    await settle_down()
    assert (handlers.running, len(taken), settled.of) == (2, 2, {})

    handlers.go.set()
    await consuming
    assert (handlers.running, len(settled.of)) == (5, 5)


async def test_a_message_that_cannot_be_settled_ends_the_consumer_with_the_error() -> None:
    async def broken(message: Message, ended: Processed | Exception) -> None:
        raise ConnectionError("the broker is gone")

    with pytest.raises(ExceptionGroup) as raised:
        await consume(Handlers().router, iterated(raw("note", 1)), broken)
    assert raised.group_contains(ConnectionError, match="the broker is gone")


async def test_a_consumer_that_is_cancelled_settles_nothing_that_had_not_ended() -> None:
    handlers, settled = Handlers(), Settled()
    consuming = asyncio.create_task(consume(handlers.router, iterated(raw("wait", 1), raw("wait", 2)), settled))
    await settle_down()

    consuming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consuming
    assert (handlers.running, settled.of) == (2, {})
