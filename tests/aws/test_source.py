"""Messages of an SQS queue become keys: deleted once stored, hidden until then, and left alone if they can be none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.aws import Queue, sqs_queue
from workqueue import Options, StoreUnavailableError
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import StoreUnusableError
from workqueue.sources.sqs import SQSSettings, SQSSource, parse_key
from workqueue.sqs.sink import SQSSink

ONE = SQSSettings(receivers=1)


class Unreliable(MemoryQueue):
    """A store that fails while it has an `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error
        self.asked = 0

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        await super().queue_many(items)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - another process has to do it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def taking(queue: Queue, target: Any, key: str = "own", settings: SQSSettings = ONE) -> AsyncIterator[SQSSource]:
    """A source that takes messages until the block ends."""
    async with SQSSource(queue.address, target, parse_key(key), settings) as source:
        running = asyncio.create_task(source.run())
        try:
            yield source
        finally:
            source.end()
            await asyncio.wait((running,))
        await running


async def emptied(queue: Queue) -> None:
    async with asyncio.timeout(30):
        while await queue.counted() != (0, 0):  # noqa: ASYNC110 - another process has to do it
            await asyncio.sleep(0.01)


async def test_what_the_sink_sent_arrives_as_it_was_said(server: str) -> None:
    later = datetime(2040, 1, 1, tzinfo=UTC)
    said = Options(-3, later, not_before_floor=True, payload=b"\x00\xff", meta={"traceparent": "00-1-2-01"})
    async with sqs_queue(server) as queue, MemoryQueue() as target:
        async with SQSSink(queue.address) as sink:
            await sink.queue("kü/1", said)
        async with taking(queue, target):
            await emptied(queue)
        state = await target.get("kü/1")
        assert (state.priority, state.not_before, state.floor) == (-3, later, True)
        assert (state.payload, state.meta) == (b"\x00\xff", {"traceparent": "00-1-2-01"})


async def test_any_other_message_is_a_key_of_its_own_with_its_body_as_payload(server: str) -> None:
    async with sqs_queue(server) as queue, MemoryQueue() as target:
        await queue.send("hello", '{"key": "not ours"}')
        async with taking(queue, target) as source:
            await emptied(queue)
        payloads = sorted(str(entry.payload) for entry in (await target.enumerate()).queued)
        assert payloads == ["b'hello'", 'b\'{"key": "not ours"}\'']
        assert source.metrics.messages == {"stored": 2, "refused": 0, "undeleted": 0}


@pytest.mark.parametrize(
    ("key_of", "body", "expected"),
    [
        ("body", " customer/42\n", "customer/42"),
        ("json:detail.id", '{"detail": {"id": 42}}', "42"),
        ("attribute:customer", "anything", "c-7"),
    ],
)
async def test_the_key_may_be_in_the_message(server: str, key_of: str, body: str, expected: str) -> None:
    async with sqs_queue(server) as queue, MemoryQueue() as target:
        await queue.send(body, MessageAttributes={"customer": {"DataType": "String", "StringValue": "c-7"}})
        async with taking(queue, target, key_of):
            await emptied(queue)
        assert [entry.key for entry in (await target.enumerate()).queued] == [expected]


async def test_a_message_is_deleted_only_once_its_key_is_stored(server: str) -> None:
    target = Unreliable(StoreUnavailableError("down"))
    async with sqs_queue(server) as queue, target:
        await queue.send("a", "b")
        async with taking(queue, target, "body"):
            await until(lambda: target.asked >= 3)
            assert queue.proxy.requests("DeleteMessageBatch") == []
            target.error = None
            await emptied(queue)
        assert (await target.counts()).queued == 2


async def test_messages_stay_hidden_while_the_store_is_down(server: str) -> None:
    target = Unreliable(StoreUnavailableError("down"))
    async with sqs_queue(server) as queue, target:
        await queue.send("a")
        async with taking(queue, target, "body", SQSSettings(receivers=2, hidden=timedelta(seconds=2))):
            await until(lambda: len(queue.proxy.requests("ChangeMessageVisibilityBatch")) >= 5)
            assert await queue.received() == [], "after more than its first 2 seconds nobody else gets it"
            target.error = None
            await emptied(queue)
        assert [entry.key for entry in (await target.enumerate()).queued] == ["a"]


async def test_an_end_while_the_store_is_down_leaves_the_messages_to_come_again(server: str) -> None:
    target = Unreliable(StoreUnavailableError("down"))
    async with sqs_queue(server) as queue, target:
        await queue.send("a")
        async with taking(queue, target, "body"):
            await until(lambda: target.asked > 0)
        assert sum(await queue.counted()) == 1
        assert queue.proxy.requests("DeleteMessageBatch") == []


async def test_a_message_that_can_never_be_a_key_stays_for_the_dead_letter_queue(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with sqs_queue(server) as queue, MemoryQueue() as target:
        await queue.send('{"id": "good"}', "no JSON", '{"id": {}}', '{"id": "' + "x" * 1001 + '"}', "[" * 50_000)
        async with taking(queue, target, "json:id") as source:
            await until(lambda: source.metrics.messages == {"stored": 1, "refused": 4, "undeleted": 0})
        assert sum(await queue.counted()) == 4
        assert [entry.key for entry in (await target.enumerate()).queued] == ["good"]
        assert "can never be a key" in caplog.text


async def test_one_message_that_the_store_refuses_takes_no_other_with_it(server: str) -> None:
    async with sqs_queue(server) as queue, MemoryQueue(max_payload=10) as target:
        await queue.send("short", "much longer than ten bytes")
        async with taking(queue, target) as source:
            await until(lambda: source.metrics.messages == {"stored": 1, "refused": 1, "undeleted": 0})
        assert sum(await queue.counted()) == 1


async def test_messages_of_one_key_become_one_key_with_the_newest_payload(server: str) -> None:
    async with sqs_queue(server, fifo=True) as queue, MemoryQueue() as target:
        for number in range(5):
            await queue.send(
                json.dumps({"id": "a", "n": number}), MessageGroupId="g", MessageDeduplicationId=str(number)
            )
        async with taking(queue, target, "json:id"):
            await emptied(queue)
        (entry,) = (await target.enumerate()).queued
        assert json.loads(entry.payload or b"")["n"] == 4


async def test_when_three_of_ten_cannot_be_deleted_these_are_tried_again(server: str) -> None:
    async with sqs_queue(server) as queue, MemoryQueue() as target:
        failing = iter([True])
        queue.proxy.fail(
            "DeleteMessageBatch",
            lambda sent: dict.fromkeys(range(len(sent))[:3], False) if next(failing, False) else {},
        )
        await queue.send(*map(str, range(10)))
        async with taking(queue, target, "body") as source:
            await emptied(queue)
            await until(lambda: source.metrics.messages["stored"] == 10)
        assert (await target.counts()).queued == 10


async def test_a_message_that_cannot_be_deleted_comes_again_and_merges(server: str) -> None:
    async with sqs_queue(server) as queue, MemoryQueue() as target:
        queue.proxy.fail("DeleteMessageBatch", lambda sent: dict.fromkeys(range(len(sent)), False))
        await queue.send("a")
        async with taking(queue, target, "body", SQSSettings(1, timedelta(seconds=2))) as source:
            await until(lambda: source.metrics.messages["undeleted"] == 1)
            queue.proxy.mend("DeleteMessageBatch")
            await emptied(queue)
        assert (await target.counts()).queued == 1
        assert source.metrics.messages == {"stored": 1, "refused": 0, "undeleted": 1}


async def test_an_outage_of_sqs_is_sat_out(server: str, caplog: pytest.LogCaptureFixture) -> None:
    async with sqs_queue(server) as queue, MemoryQueue() as target:
        queue.proxy.answer("ReceiveMessage", 503, "ServiceUnavailable", times=6)
        await queue.send("a")
        async with taking(queue, target, "body") as source:
            await emptied(queue)
            assert source.ready
        assert "no messages can be received" in caplog.text


async def test_a_store_or_service_that_needs_an_operator_ends_it(server: str) -> None:
    target = Unreliable(StoreUnusableError("no space"))
    async with sqs_queue(server) as queue, target, SQSSource(queue.address, target, settings=ONE) as source:
        await queue.send("a")
        with pytest.raises(StoreUnusableError, match="no space"):
            await source.run()
        queue.proxy.answer("ReceiveMessage", 403, "AccessDenied", times=10)
        with pytest.raises(StoreUnusableError, match="AccessDenied"):
            await source.run()
        assert sum(await queue.counted()) == 1
