"""Keys sent to an SQS queue: in batches, each message accounted for, in order where the queue keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.aws import Queue, sqs_queue
from tests.support.sinks import failures
from workqueue import Options
from workqueue.enqueuer import BackgroundEnqueuer, FailedKey
from workqueue.errors import (
    InvalidKeyError,
    InvalidOptionsError,
    PartlyStoredError,
    StoreUnavailableError,
    StoreUnusableError,
)
from workqueue.sqs.sink import SQSSink

NO_PATIENCE = timedelta(milliseconds=1)


def first_three(entries: Any) -> dict[int, bool]:
    return dict.fromkeys(range(min(3, len(entries))), False)


def items(*keys: str) -> list[tuple[str, Options]]:
    return [(key, Options()) for key in keys]


def impatient(queue: Queue) -> SQSSink:
    return SQSSink(replace(queue.address, patience=NO_PATIENCE))


async def test_keys_go_in_batches_of_ten(server: str) -> None:
    async with sqs_queue(server) as queue, SQSSink(queue.address) as sink:
        await sink.queue_many(items(*map(str, range(25))))
        sizes = [len(body["Entries"]) for body in queue.proxy.requests("SendMessageBatch")]
        assert sorted(sizes) == [5, 10, 10]
        assert sorted(await queue.keys()) == sorted(map(str, range(25)))


async def test_when_three_of_ten_fail_for_a_passing_reason_only_these_are_sent_again(server: str) -> None:
    async with sqs_queue(server) as queue, SQSSink(queue.address) as sink:
        failing = iter([True])
        queue.proxy.fail("SendMessageBatch", lambda sent: first_three(sent) if next(failing, False) else {})
        await sink.queue_many(items(*"abcdefghij"))
        first, again = queue.proxy.requests("SendMessageBatch")
        assert (len(first["Entries"]), len(again["Entries"])) == (10, 3)
        assert sorted(await queue.keys()) == list("abcdefghij")


async def test_when_three_of_ten_are_the_senders_fault_they_are_reported_and_not_sent_again(server: str) -> None:
    async with sqs_queue(server) as queue, SQSSink(queue.address) as sink:
        queue.proxy.fail("SendMessageBatch", lambda sent: dict.fromkeys((1, 4, 9), True))
        with pytest.raises(PartlyStoredError) as raised:
            await sink.queue_many(items(*"abcdefghij"))
        assert sorted(failures(raised.value.failed)) == [(key, "InvalidOptionsError") for key in "bej"]
        assert len(queue.proxy.requests("SendMessageBatch")) == 1
        assert sorted(await queue.keys()) == list("acdfghi")


async def test_entries_that_fail_beyond_all_patience_are_given_up_one_by_one(server: str) -> None:
    async with sqs_queue(server) as queue, impatient(queue) as sink:
        queue.proxy.fail("SendMessageBatch", first_three)
        failed: list[FailedKey] = []
        async with BackgroundEnqueuer(sink, on_error=failed.append, batch=10, patience=NO_PATIENCE) as enqueuer:
            for key in "abcdefghij":
                await enqueuer.put(key)
        assert failures(failed) == [(key, "StoreUnavailableError") for key in "abc"]
        assert sorted(await queue.keys()) == list("defghij")


async def test_a_message_keeps_its_number_when_the_enqueuer_sends_it_again(server: str) -> None:
    async with sqs_queue(server, fifo=True) as queue, impatient(queue) as sink:
        failing = iter([True, True])
        queue.proxy.fail("SendMessageBatch", lambda sent: {0: False} if next(failing, False) else {})
        async with BackgroundEnqueuer(sink) as enqueuer:
            await enqueuer.put("a", Options(meta={"team": "web"}))
        tries = queue.proxy.requests("SendMessageBatch")
        assert len(tries) == 3
        assert len({body["Entries"][0]["MessageDeduplicationId"] for body in tries}) == 1
        (message,) = await queue.received()
        assert json.loads(message["Body"])["meta"] == {"team": "web"}, "the number is no part of what is sent"


async def test_two_puts_of_one_key_are_two_messages_to_a_fifo_queue(server: str) -> None:
    async with sqs_queue(server, fifo=True) as queue, SQSSink(queue.address) as sink:
        for payload in (b"1", b"2"):
            await sink.queue("a", Options(payload=payload))
        await sink.queue("b")
        first, second = (body["Entries"][0] for body in queue.proxy.requests("SendMessageBatch")[:2])
        assert first["MessageGroupId"] == second["MessageGroupId"]
        assert first["MessageDeduplicationId"] != second["MessageDeduplicationId"]
        assert await queue.counted() == (3, 0)


async def test_the_longest_key_has_a_group_that_sqs_takes(server: str) -> None:
    async with sqs_queue(server, fifo=True) as queue, SQSSink(queue.address) as sink:
        await sink.queue("ü" * 500)
        (body,) = queue.proxy.requests("SendMessageBatch")
        assert len(body["Entries"][0]["MessageGroupId"]) <= 128
        assert await queue.keys() == ["ü" * 500]


async def test_batches_are_cut_before_they_are_larger_than_a_mebibyte(server: str) -> None:
    async with sqs_queue(server, MaximumMessageSize="1048576") as queue, SQSSink(queue.address) as sink:
        payload = Options(payload=bytes(200 * 1024))
        await sink.queue_many([(str(number), payload) for number in range(7)])
        sizes = [len(body["Entries"]) for body in queue.proxy.requests("SendMessageBatch")]
        assert sorted(sizes) == [1, 3, 3]


async def test_a_batch_that_this_queue_finds_too_long_goes_one_by_one(server: str) -> None:
    async with sqs_queue(server) as queue, SQSSink(queue.address) as sink:
        queue.proxy.answer("SendMessageBatch", 400, "BatchRequestTooLong", times=2)
        with pytest.raises(PartlyStoredError) as raised:
            await sink.queue_many(items("a", "b", "c"))
        assert failures(raised.value.failed) == [("a", "InvalidOptionsError")]
        assert sorted(await queue.keys()) == ["b", "c"]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (503, "ServiceUnavailable", StoreUnavailableError),
        (400, "RequestThrottled", StoreUnavailableError),
        (403, "AccessDenied", StoreUnusableError),
        (400, "QueueDoesNotExist", StoreUnusableError),
        (403, "InvalidClientTokenId", StoreUnusableError),
    ],
)
async def test_an_error_of_the_service_says_whether_it_may_pass(
    server: str, status: int, code: str, error: type[Exception]
) -> None:
    async with sqs_queue(server) as queue, impatient(queue) as sink:
        queue.proxy.answer("SendMessageBatch", status, code, times=10)
        with pytest.raises(error, match=code):
            await sink.queue("a")


async def test_a_service_that_is_not_there_may_come_back(server: str) -> None:
    async with sqs_queue(server) as queue:
        nobody = replace(queue.address, endpoint="http://127.0.0.1:9", patience=NO_PATIENCE)
        async with SQSSink(nobody) as sink:
            with pytest.raises(StoreUnavailableError):
                await sink.queue("a")


async def test_a_queue_that_does_not_exist_needs_an_operator(server: str) -> None:
    async with (
        sqs_queue(server) as queue,
        SQSSink(replace(queue.address, queue_url=f"{queue.address.queue_url}x")) as sink,
    ):
        with pytest.raises(StoreUnusableError):
            await sink.queue("a")


async def test_a_key_that_comes_twice_is_one_message(server: str) -> None:
    async with sqs_queue(server) as queue, SQSSink(queue.address) as sink:
        await sink.queue_many([("a", Options(priority=1)), ("a", Options(priority=5, payload=b"p"))])
        (message,) = await queue.received()
        assert json.loads(message["Body"]) == {
            "workqueue": 1,
            "key": "a",
            "priority": 5,
            "payload_base64": "cA==",
        }


async def test_one_invalid_key_sends_none(server: str) -> None:
    async with sqs_queue(server) as queue, SQSSink(queue.address) as sink:
        with pytest.raises(InvalidKeyError):
            await sink.queue_many(items("a", ""))
        half = "x" * 600
        with pytest.raises(InvalidOptionsError):
            await sink.queue_many([("a", Options(meta={"a": half})), ("a", Options(meta={"b": half}))])
        assert queue.proxy.requests("SendMessageBatch") == []
