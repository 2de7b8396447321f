"""CloudEvents over HTTP become keys: every mode, every way to name a key, and an answer that is true."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession

from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.sources.cloudevents import EventMetrics, KeyOf, Subscription, Unparsable, parse_filter, read_event
from workqueue.testing import FlakyQueue
from workqueue.web.server import http_server

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/shop",
    "type": "com.example.order.paid",
    "subject": "order/7",
    "partitionkey": "eu",
    "data": {"user": {"id": 42, "vip": True}, "items": [{"name": "tea"}]},
}
STRUCTURED = {"content-type": "application/cloudevents+json; charset=utf-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


def binary(event: Mapping[str, Any]) -> dict[str, str]:
    headers = {f"ce-{name}": str(value) for name, value in event.items() if name != "data"}
    return {**headers, "content-type": "application/json"}


class Sender:
    """Sends events to a subscription that serves on loopback, and looks at what its queue has."""

    def __init__(self, session: ClientSession, url: str, queue: MemoryQueue) -> None:
        self._session, self._url, self._queue = session, url, queue

    async def send(self, body: Any, headers: Mapping[str, str] = STRUCTURED, method: str = "POST") -> tuple[int, str]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._session.request(method, self._url, data=data, headers=headers) as response:
            return response.status, await response.text()

    async def keys(self) -> list[str]:
        return [queued.key for queued in (await self._queue.enumerate(1000)).queued]


@asynccontextmanager
async def subscribed(key: str = "subject", queue: Any = None, **options: Any) -> AsyncIterator[Sender]:
    async with MemoryQueue() as memory, ClientSession() as session:
        subscription = Subscription(queue or memory, KeyOf.parse(key), **options)
        async with http_server(subscription.app(), "127.0.0.1", 0) as port:
            yield Sender(session, f"http://127.0.0.1:{port}/", memory)


async def test_an_event_is_taken_in_every_mode() -> None:
    async with subscribed() as sender:
        assert await sender.send(EVENT) == (202, "")
        assert await sender.send(EVENT["data"], binary({**EVENT, "subject": "b%20c"})) == (202, "")
        batch = [{**EVENT, "subject": f"batch/{number}"} for number in range(3)]
        assert await sender.send(batch, BATCH) == (202, "")
        assert await sender.send([], BATCH) == (202, "")
        assert await sender.keys() == ["order/7", "b c", "batch/0", "batch/1", "batch/2"]


@pytest.mark.parametrize(
    ("expression", "key"),
    [
        ("subject", "order/7"),
        ("partitionkey", "eu"),
        ("data.user.id", "42"),
        ("data.user.vip", "true"),
        ("data.items[0].name", "tea"),
        ("{partitionkey}:{data.user.id}", "eu:42"),
        ("orders/{subject}", "orders/order/7"),
    ],
)
def test_a_key_is_an_attribute_an_extension_a_path_or_a_template(expression: str, key: str) -> None:
    structured = read_event(STRUCTURED, json.dumps(EVENT).encode())
    in_headers = read_event(binary(EVENT), json.dumps(EVENT["data"]).encode())

    assert KeyOf.parse(expression).of(structured) == key
    assert KeyOf.parse(expression).of(in_headers) == key


@pytest.mark.parametrize(
    "expression", ["", "data", "Subject", "data..x", "data.x[", "{}", "{subject", "a b", "plain/", "{data}"]
)
def test_what_names_no_key_is_refused_at_the_start(expression: str) -> None:
    with pytest.raises(InvalidSettingError):
        KeyOf.parse(expression)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("type=com.example.order.paid", True),
        ("type=com.example", False),
        ("type^=com.example.", True),
        ("type^=org.", False),
        ("type$=.paid", True),
        ("type!=com.example.order.paid", False),
        ("absent!=x", True),
        ("absent=", False),
        ("data.user.id=42", True),
        ('{"exact": {"partitionkey": "eu", "data.user.vip": "true"}}', True),
        ('{"exact": {"partitionkey": "eu", "subject": "x"}}', False),
        ('{"any": [{"prefix": {"subject": "x"}}, {"suffix": {"subject": "/7"}}]}', True),
        ('{"all": [{"prefix": {"subject": "x"}}, {"suffix": {"subject": "/7"}}]}', False),
        ('{"not": {"all": [{"exact": {"source": "/shop"}}]}}', False),
    ],
)
def test_a_filter_decides_by_any_field(text: str, passes: bool) -> None:
    assert parse_filter(text)(read_event(STRUCTURED, json.dumps(EVENT).encode())) is passes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type",
        "=x",
        "TYPE=x",
        "{",
        "{}",
        '{"sql": "type = 1"}',
        '{"any": []}',
        '{"exact": {}}',
        '{"exact": 1}',
        '{"all": [1]}',
    ],
)
def test_what_is_no_filter_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(InvalidSettingError, match=r"filter|field"):
        parse_filter(text)


async def test_what_is_of_no_interest_is_acknowledged_and_forgotten() -> None:
    async with subscribed(filters=[parse_filter("type^=org.")]) as sender:
        assert await sender.send(EVENT) == (202, "")
        assert await sender.keys() == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"{}", {"content-type": "application/json"}, 400, "no CloudEvent"),
        (b"not json", STRUCTURED, 400, "cannot be read"),
        (b"[1]", STRUCTURED, 400, "is a JSON object"),
        (b"null", STRUCTURED, 400, "is a JSON object"),
        (b"[" * 100_000, STRUCTURED, 400, "cannot be read"),
        (b"\xff", STRUCTURED, 400, "cannot be read"),
        ({**EVENT, "id": ""}, STRUCTURED, 400, "no id"),
        ({**EVENT, "specversion": "9"}, STRUCTURED, 400, "cannot be read"),
        ({**EVENT, "time": "noon"}, STRUCTURED, 400, "cannot be read"),
        ({**EVENT, "Bad-Name": "x"}, STRUCTURED, 400, "cannot be read"),
        ({}, binary({**EVENT, "type": ""}), 400, "no type"),
        (b"{}", BATCH, 400, "array"),
        (b"nope", BATCH, 400, "no JSON"),
        ({**EVENT, "subject": "a\nb"}, STRUCTURED, 422, "U+000A"),
        ({**EVENT, "subject": "x" * 1001}, STRUCTURED, 422, "1000 bytes"),
        ({name: EVENT[name] for name in EVENT if name != "subject"}, STRUCTURED, 422, "no subject"),
    ],
)
async def test_what_can_never_work_is_refused_with_its_reason(
    body: Any, headers: Any, status: int, reason: str
) -> None:
    async with subscribed() as sender:
        answer = await sender.send(body, headers)
        assert answer[0] == status
        assert reason in answer[1]
        assert answer[1].count("\n") == 1
        assert await sender.keys() == []


async def test_data_that_is_not_what_it_says_costs_a_key_only_if_the_key_is_made_of_it() -> None:
    async with subscribed("subject") as sender:
        assert (await sender.send(b"not json", binary(EVENT)))[0] == 202
    async with subscribed("data.user.id") as sender:
        assert (await sender.send(b"not json", binary(EVENT)))[0] == 422


async def test_one_bad_event_of_a_batch_does_not_cost_the_others_their_keys() -> None:
    async with subscribed() as sender:
        nameless = {name: EVENT[name] for name in EVENT if name != "subject"}
        status, reason = await sender.send([{**EVENT, "subject": "a"}, nameless, 5, {**EVENT, "subject": "b"}], BATCH)
        assert status == 422
        assert "event 1" in reason
        assert "event 2" in reason
        assert "the other 2 are taken" in reason
        assert await sender.keys() == ["a", "b"]


async def test_a_queue_that_cannot_store_is_never_answered_with_a_yes() -> None:
    async with MemoryQueue() as memory:
        queue = FlakyQueue(memory)
        async with subscribed(queue=queue) as sender:
            queue.fail("queue_many", StoreUnavailableError("the disk is full"))
            assert await sender.send(EVENT) == (503, "the disk is full\n")
            assert (await memory.enumerate(10)).queued == []
            assert await sender.send(EVENT) == (202, "")
            assert [queued.key for queued in (await memory.enumerate(10)).queued] == ["order/7"]


async def test_a_request_that_is_too_large_is_refused_without_being_read_to_its_end() -> None:
    async with subscribed(max_body=1000) as sender:
        assert (await sender.send(b"x" * 1001))[0] == 413
        assert (await sender.send({**EVENT, "data": "x" * 300}))[0] == 202


async def test_the_newest_event_may_be_kept_with_its_key() -> None:
    async with subscribed(with_event=True, priority=3) as sender:
        await sender.send({**EVENT, "id": "old"})
        trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        await sender.send({**EVENT, "id": "new", "traceparent": trace})
        [queued] = (await sender._queue.enumerate(10)).queued
        assert queued.payload is not None
        kept = json.loads(queued.payload)
        assert (kept["id"], kept["data"], queued.priority) == ("new", EVENT["data"], 3)
        assert queued.meta == {"traceparent": trace}


async def test_an_event_that_can_never_be_a_key_may_be_a_dead_letter_instead_of_a_refusal() -> None:
    async with MemoryQueue("unparsable") as letters, subscribed(unparsable=Unparsable(letters)) as sender:
        for _ in range(2):
            assert await sender.send(b"not json") == (202, "")
        assert await sender.send({**EVENT, "subject": "\n"}) == (202, "")
        found = [letter async for letter in (await letters.enumerate(0)).dead_letters]
        assert len(found) == 2
        assert "cannot be read" in found[0].error
        assert json.loads(found[0].payload or b"")["body"] == "bm90IGpzb24="
        assert (await letters.enumerate(10)).queued == []


async def test_an_event_is_not_acknowledged_before_its_dead_letter_is_stored() -> None:
    async with MemoryQueue("unparsable") as memory:
        letters = FlakyQueue(memory)
        letters.fail("queue")
        async with subscribed(unparsable=Unparsable(letters)) as sender:
            assert (await sender.send(b"not json"))[0] == 503
            assert (await sender.send(b"not json"))[0] == 202


async def test_events_are_counted_by_what_became_of_them() -> None:
    metrics = EventMetrics("builds")
    async with subscribed(metrics=metrics, filters=[parse_filter("type!=dull")]) as sender:
        await sender.send([EVENT, EVENT, EVENT | {"subject": ""}, EVENT | {"type": "dull"}], BATCH)
        await sender.send(b"{")
        await sender.send(EVENT)

    counted = {labels[1]: number for _, labels, number in metrics.samples()}
    assert counted == {"stored": 3, "refused": 2}


async def test_a_sender_of_webhooks_may_ask_first_whether_it_may_send() -> None:
    async with subscribed() as sender:
        headers = {"WebHook-Request-Origin": "events.example.com"}
        async with sender._session.options(sender._url, headers=headers) as response:
            assert response.status == 200
            assert response.headers["WebHook-Allowed-Origin"] == "events.example.com"
        assert (await sender.send(b"", method="GET"))[0] == 405
