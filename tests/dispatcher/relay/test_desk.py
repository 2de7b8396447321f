"""What operators see of requests, and what they can do with them; and what is removed by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession
from starlette.applications import Starlette

from dispatcher.relay.desk import Desk, purge
from dispatcher.relay.outcomes import Outcome, Outcomes
from dispatcher.relay.request import RelayedRequest
from dispatcher.relay.target import Target
from tests.support.dispatching import clock_of, dead_letters, memory, opened, states
from workqueue import KeyState, Options, StoreUnavailableError
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.testing import FakeClock
from workqueue.web.server import http_server

DAY = timedelta(days=1)


def stored(target: str = "b") -> Options:
    headers = [("authorization", "Bearer secret"), ("x", "1")]
    request = RelayedRequest(
        "POST", Target("http", target, 80), "/x?token=secret", headers, b"body", DAY / 24, 1_750_000_000_000_000
    )
    return Options(payload=request.to_payload())


async def given_up(queue: MemoryQueue, *ids: str) -> None:
    for id_ in ids:
        await queue.queue(id_, stored(id_.partition(":")[0]))
        found = (await queue.find(id_)).queued
        assert found is not None
        await (await found.start()).dead_letter("the target answered 404")


class Client:
    """Asks a relay on a real server."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        async with self._session.request(method, f"/_relay/{path}") as response:
            return response.status, await response.json() if response.status != 204 else None

    async def get(self, path: str) -> Any:
        return (await self.ask("GET", path))[1]


@asynccontextmanager
async def desk(queue: MemoryQueue, outcomes: Outcomes | None = None) -> AsyncIterator[Client]:
    app = Starlette(routes=Desk(queue, outcomes or Outcomes(memory()), lambda: {"c:80": 61.25}).routes())
    async with (
        http_server(app, "127.0.0.1", 0) as port,
        ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        yield Client(session)


async def test_a_request_that_waits_is_shown_without_what_may_be_secret() -> None:
    queue = memory()
    await queue.queue("b:80/1", stored())

    async with desk(queue) as client:
        shown = await client.get("requests/b:80/1")

    assert shown == {
        "id": "b:80/1",
        "state": "waiting",
        "tries": 0,
        "last_error": "",
        "target": "http://b:80",
        "method": "POST",
        "path": "/x",
        "body_bytes": 4,
        "received": "2025-06-15T15:06:40+00:00",
    }
    assert "secret" not in str(shown)


async def test_a_request_that_failed_says_why_and_when_it_is_tried_again() -> None:
    queue = memory()
    await queue.queue("b:80/1", Options(payload=stored().payload, meta={"tries": "3"}))
    [queued] = (await queue.enumerate()).queued
    await (await queued.start()).requeue(backoff=DAY, error="the target answered 500")

    async with desk(queue) as client:
        shown = await client.get("requests/b:80/1")

    assert (shown["state"], shown["tries"], shown["last_error"]) == ("waiting", 4, "the target answered 500")
    assert shown["next_try"].startswith("2025-06-16T")


async def test_a_delivered_request_is_shown_as_long_as_its_outcome_is_kept() -> None:
    outcomes = Outcomes(memory())
    until_us = 1_750_000_100_000_000
    await outcomes.keep("b:80/1", Outcome("http://b:80", "POST", "/x", 201, 2, 1, 2, until_us, "f"))

    async with desk(memory(), outcomes) as client:
        shown = await client.get("requests/b:80/1")
        status, unknown = await client.ask("GET", "requests/b:80/2")
        listed = [(await client.get(f"delivered?target={target}"))["delivered"] for target in ("b:80", "c:80")]

    assert (shown["state"], shown["status"], shown["tries"]) == ("delivered", 201, 2)
    assert (status, unknown["error"]) == (404, "unknown")
    assert [[each["id"] for each in some] for some in listed] == [["b:80/1"], []]


async def test_a_request_that_waits_or_was_given_up_can_be_removed_and_one_in_hand_cannot() -> None:
    queue = memory()
    await given_up(queue, "b:80/dead")
    await queue.queue("b:80/in-hand", stored())
    await (await queue.enumerate()).queued[0].start()
    await queue.queue("b:80/waits", stored())

    async with desk(queue) as client:
        places = ("waits", "dead", "in-hand", "unknown")
        statuses = [(await client.ask("DELETE", f"requests/b:80/{place}"))[0] for place in places]

    assert statuses == [204, 204, 409, 404]
    assert set((await states(queue, "b:80/waits", "b:80/dead")).values()) == {"UNKNOWN"}


async def test_a_request_that_was_given_up_is_sent_again_with_all_of_its_tries() -> None:
    queue = memory()
    await queue.queue("b:80/1", Options(payload=stored().payload, meta={"tries": "9"}))
    [queued] = (await queue.enumerate()).queued
    await (await queued.start()).dead_letter("no")

    async with desk(queue) as client:
        statuses = [(await client.ask("POST", "requests/b:80/1/redrive"))[0] for _ in range(2)]

    assert statuses == [202, 404]
    [again] = (await queue.enumerate()).queued
    assert (again.key, again.meta["tries"], again.payload) == ("b:80/1", "0", stored().payload)


async def test_those_given_up_are_listed_and_sent_again_by_target() -> None:
    queue = memory()
    await given_up(queue, "b:80/1", "b:80/2", "c:80/1")

    async with desk(queue) as client:
        listed = (await client.get("dead-letters?target=b:80"))["dead_letters"]
        limited = (await client.get("dead-letters?limit=1"))["dead_letters"]
        redriven = await client.ask("POST", "dead-letters/redrive?target=b:80")

    assert [letter["id"] for letter in listed] == ["b:80/1", "b:80/2"]
    assert (listed[0]["last_error"], listed[0]["target"], len(limited)) == ("the target answered 404", "http://b:80", 1)
    assert redriven == (202, {"redriven": 2})
    assert list(await dead_letters(queue)) == ["c:80/1"]


async def test_those_given_up_long_ago_are_removed_when_that_is_asked_for() -> None:
    queue = memory()
    await given_up(queue, "b:80/old")
    clock_of(queue).advance(DAY)
    await given_up(queue, "b:80/new")

    async with desk(queue) as client:
        dropped = await client.ask("DELETE", "dead-letters?older_than=1h")

    assert dropped == (200, {"dropped": 1})
    assert list(await dead_letters(queue)) == ["b:80/new"]


async def test_those_given_up_are_removed_by_themselves_where_that_is_set() -> None:
    queue = memory()
    await given_up(queue, "b:80/old")
    clock_of(queue).advance(DAY)
    await given_up(queue, "b:80/new")

    assert await purge(queue, 2 * DAY) == 0
    assert await purge(queue, DAY) == 1
    assert list(await dead_letters(queue)) == ["b:80/new"]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=10001", "older_than=soon", "older_than=-1h"])
async def test_a_question_that_makes_no_sense_is_refused(query: str) -> None:
    async with desk(memory()) as client:
        status, _ = await client.ask("GET", f"dead-letters?{query}")

    assert status == 400


class Down(MemoryQueue):
    """A store that cannot be reached."""

    async def get(self, key: str) -> KeyState:
        raise StoreUnavailableError("redis://secret is not there")


async def test_a_store_that_is_down_is_a_503_that_says_nothing_of_it() -> None:
    async with desk(opened(Down(clock=FakeClock()))) as client:
        status, answer = await client.ask("GET", "requests/b:80/1")

    assert (status, answer["error"]) == (503, "unavailable")
    assert "secret" not in answer["message"]


async def test_targets_that_are_down_are_listed() -> None:
    async with desk(memory()) as client:
        assert await client.get("targets") == {"down": {"c:80": 61.2}}


async def test_something_else_in_the_queue_is_shown_as_far_as_it_goes() -> None:
    queue = memory()
    await queue.queue("b:80/1", Options(payload=b"no request"))

    async with desk(queue) as client:
        shown = await client.get("requests/b:80/1")

    assert shown == {"id": "b:80/1", "state": "waiting", "tries": 0, "last_error": ""}


async def test_the_request_itself_is_shown_without_its_credentials_as_long_as_it_is_kept() -> None:
    queue, outcomes = memory(), Outcomes(memory())
    await queue.queue("b:80/waits", stored())
    kept = Outcome("http://b:80", "POST", "/x", 201, 2, 1, 2, 1_750_000_100_000_000, "f")
    await outcomes.keep("b:80/kept", kept, stored().payload or b"")
    await outcomes.keep("b:80/not-kept", kept)

    async with desk(queue, outcomes) as client:
        waits, delivered = [await client.get(f"requests/b:80/{place}/content") for place in ("waits", "kept")]
        status, _ = await client.ask("GET", "requests/b:80/not-kept/content")

    assert waits == delivered | {"id": "b:80/waits"}
    assert (waits["path"], waits["body_base64"], status) == ("/x?token=secret", "Ym9keQ==", 404)
    assert waits["headers"] == [["authorization", "…"], ["x", "1"]]
