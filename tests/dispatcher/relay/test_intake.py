"""Requests that come in, over a real server: what is stored, what is refused, and what strangers cannot do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dispatcher.health import Health
from dispatcher.relay.app import relay_app
from dispatcher.relay.desk import Desk
from dispatcher.relay.intake import Intake
from dispatcher.relay.lanes import Lanes
from dispatcher.relay.metrics import RelayMetrics
from dispatcher.relay.outcomes import Outcome, Outcomes
from dispatcher.relay.pressure import Pressure
from dispatcher.relay.request import RelayedRequest, repeatable_id
from dispatcher.relay.settings import RelaySettings
from dispatcher.relay.target import AllowedTargets, Target
from dispatcher.settings import DispatcherSettings
from dispatcher.setup import Setup
from tests.support.dispatching import memory, nothing, opened
from workqueue import KeyNotFoundError, Options, StoreUnavailableError
from workqueue.access.tokens import StaticTokens
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import StoreUnusableError
from workqueue.testing import FakeClock
from workqueue.web.bearer import BearerTokens
from workqueue.web.http_limits import HttpLimits
from workqueue.web.probes import probing
from workqueue.web.server import http_server

TO_B = {"X-Dispatcher-Original-Host": "http://b:8080"}
MAX_BODY = 1000


class Store(MemoryQueue):
    """A store that can be made to fail, or to be slow."""

    def __init__(self) -> None:
        super().__init__("relay", clock=FakeClock())
        self.error: Exception | None = None
        self.turns = 0

    async def queue(self, key: str, options: Options = Options()) -> None:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        await super().queue(key, options)


@dataclass
class Answered:
    status: int
    headers: Any
    document: Any


class Relay:
    """What takes requests in, without what sends them."""

    def __init__(
        self, queue: Store, port: int, session: ClientSession, outcomes: Outcomes, metrics: RelayMetrics
    ) -> None:
        self.queue, self.port, self.outcomes, self.metrics = queue, port, outcomes, metrics
        self._session = session

    async def ask(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> Answered:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self._session.request(method, url, headers=headers, data=body) as response:
            is_json = response.headers.get("content-type") == "application/json"
            return Answered(response.status, response.headers, await (response.json() if is_json else response.text()))

    async def stored(self) -> list[RelayedRequest]:
        return [RelayedRequest.from_payload(key.payload or b"") for key in (await self.queue.enumerate()).queued]


async def _scraped(request: Request) -> Response:
    return PlainTextResponse("metrics")


@asynccontextmanager
async def relay(*, tokens: bool = False, most_stored: int = 0) -> AsyncIterator[Relay]:
    queue = opened(Store())
    outcomes, lanes, metrics = Outcomes(memory()), Lanes(queue, 10, queue.clock), RelayMetrics("relay")
    pressure = Pressure(queue, most_stored, queue.clock)
    allowed = AllowedTargets(["b", "10.0.0.0/8", "127.0.0.1:9"])
    intake = Intake(queue, outcomes, allowed, RelaySettings(max_body=MAX_BODY), metrics, pressure)
    intake.asks_for_tokens = tokens
    health = Health(Setup.of(queue, nothing, DispatcherSettings()))
    app = relay_app(intake, Desk(queue, outcomes, lanes.down), health, _scraped)
    guarded = BearerTokens(app, StaticTokens(["secret"])) if tokens else app
    async with (
        pressure.measured(),
        http_server(guarded, "127.0.0.1", 0, limits=HttpLimits(body_bytes=MAX_BODY)) as port,
        ClientSession() as session,
    ):
        yield Relay(queue, port, session, outcomes, metrics)


async def test_a_request_is_stored_before_it_is_acknowledged_and_location_names_it() -> None:
    async with relay() as to:
        answer = await to.ask("POST", "/x?y=1", {**TO_B, "Content-Type": "text/odd"}, b"body")
        state = await to.queue.get(answer.document["id"])

    assert (answer.status, answer.headers["location"]) == (202, f"/_relay/requests/{state.key}")
    request = RelayedRequest.from_payload(state.payload or b"")
    assert (request.method, str(request.target), request.path, request.body) == (
        "POST",
        "http://b:8080",
        "/x?y=1",
        b"body",
    )
    assert ("content-type", "text/odd") in request.headers
    assert state.key.startswith("b:8080/")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PURGE"])
async def test_every_method_is_relayed(method: str) -> None:
    async with relay() as to:
        answer = await to.ask(method, "/", TO_B)
        [request] = await to.stored()

    assert (answer.status, request.method) == (202, method)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 400, "no-target"),
        ({"X-Dispatcher-Original-Host": "http://b/path"}, 400, "target"),
        ({**TO_B, "X-Dispatcher-Origin-Host": "http://c"}, 400, "target"),
        ({**TO_B, "X-Dispatcher-Timeout": "soon"}, 400, "timeout"),
        ({"X-Dispatcher-Original-Host": "http://c"}, 403, "target-not-allowed"),
        ({"X-Dispatcher-Original-Host": "http://192.168.1.1"}, 403, "target-not-allowed"),
        ({"X-Dispatcher-Original-Host": "http://169.254.169.254"}, 403, "target-not-allowed"),
        ({"X-Dispatcher-Original-Host": "http://127.0.0.1:80"}, 403, "target-not-allowed"),
        ({"X-Dispatcher-Original-Host": "http://[::ffff:127.0.0.1]:9"}, 403, "target-not-allowed"),
    ],
)
async def test_what_can_never_be_relayed_is_refused_with_a_reason_and_not_stored(
    headers: dict[str, str], status: int, code: str
) -> None:
    async with relay() as to:
        answer = await to.ask("POST", "/", headers, b"body")
        stored = await to.stored()

    assert (answer.status, answer.document["error"], stored) == (status, code, [])
    assert answer.document["message"]
    assert to.metrics.received == {"refused": 1}


@pytest.mark.parametrize(("extra", "status", "number"), [(0, 202, 1), (1, 413, 0)])
async def test_a_body_may_have_the_limit_and_not_one_byte_more(extra: int, status: int, number: int) -> None:
    async with relay() as to:
        answer = await to.ask("POST", "/", TO_B, b"x" * (MAX_BODY + extra))
        stored = await to.stored()

    assert (answer.status, len(stored)) == (status, number)


async def test_a_body_without_end_is_cut_off() -> None:
    async with relay() as to:
        reader, writer = await asyncio.open_connection("127.0.0.1", to.port)
        writer.write(
            b"POST / HTTP/1.1\r\nhost: r\r\nx-dispatcher-original-host: b\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        writer.write((b"64\r\n" + b"x" * 100 + b"\r\n") * 11)  # and no last chunk
        answer = await reader.read()
        writer.close()
        stored = await to.stored()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert stored == []


async def test_a_caller_that_hangs_up_in_the_middle_leaves_nothing() -> None:
    async with relay() as to:
        _, writer = await asyncio.open_connection("127.0.0.1", to.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: r\r\nx-dispatcher-original-host: b\r\ncontent-length: 9\r\n\r\nhalf")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        answer = await to.ask("GET", "/healthz", {})
        stored = await to.stored()

    assert (answer.status, stored) == (200, [])


@pytest.mark.parametrize("error", [StoreUnavailableError("disk full"), StoreUnusableError("a newer layout")])
async def test_a_store_that_fails_is_a_503_and_says_nothing_of_itself(error: Exception) -> None:
    async with relay() as to:
        to.queue.error = error
        answer = await to.ask("POST", "/", TO_B, b"body")

    assert (answer.status, answer.headers["retry-after"], answer.document["error"]) == (503, "5", "unavailable")
    assert str(error) not in answer.document["message"]
    assert to.metrics.received == {"unavailable": 1}


async def test_no_more_are_taken_than_may_wait_and_room_is_noticed() -> None:
    async with relay(most_stored=2) as to:
        statuses = [(await to.ask("POST", "/", TO_B)).status for _ in range(3)]
        for queued in (await to.queue.enumerate()).queued:
            await queued.drop()
        assert isinstance(to.queue.clock, FakeClock)
        to.queue.clock.advance(timedelta(seconds=1))
        await asyncio.sleep(0)
        statuses.append((await to.ask("POST", "/", TO_B)).status)

    assert statuses == [202, 202, 503, 202]


async def test_repetitions_at_the_same_time_are_stored_once() -> None:
    async with relay() as to:
        to.queue.turns = 20
        headers = {**TO_B, "Idempotency-Key": "order-1"}
        answers = await asyncio.gather(*[to.ask("POST", "/pay", headers, b"5 EUR") for _ in range(10)])

    assert {answer.status for answer in answers} == {202}
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 9
    assert to.metrics.received == {"stored": 1, "repeated": 9}
    assert to.queue.metrics.added == 1


@pytest.mark.parametrize(("path", "body"), [("/other", b"5 EUR"), ("/pay", b"6 EUR")])
async def test_an_idempotency_key_stands_for_one_request(path: str, body: bytes) -> None:
    async with relay() as to:
        headers = {**TO_B, "Idempotency-Key": "order-1"}
        await to.ask("POST", "/pay", headers, b"5 EUR")
        answer = await to.ask("POST", path, headers, body)
        [stored] = await to.stored()

    assert (answer.status, answer.document["error"], stored.body) == (422, "idempotency-key", b"5 EUR")


async def test_a_request_that_was_given_up_may_come_again_with_its_idempotency_key() -> None:
    async with relay() as to:
        headers = {**TO_B, "Idempotency-Key": "order-1"}
        first = await to.ask("POST", "/pay", headers, b"5 EUR")
        [queued] = (await to.queue.enumerate()).queued
        await (await queued.start()).dead_letter("gone")
        again = await to.ask("POST", "/pay", headers, b"5 EUR")

    assert first.document == again.document
    assert "idempotent-replayed" not in again.headers
    assert (await to.queue.counts()).queued == 1


async def test_an_outcome_whose_time_is_over_does_not_hold_a_request_back() -> None:
    async with relay() as to:
        id_ = repeatable_id(Target("http", "b", 8080), "order-1")
        await to.outcomes.keep(id_, Outcome("http://b:8080", "POST", "/pay", 200, 1, 1, 2, 3, "another request"))
        answer = await to.ask("POST", "/pay", {**TO_B, "Idempotency-Key": "order-1"}, b"5 EUR")

    assert (answer.status, "idempotent-replayed" in answer.headers) == (202, False)


async def test_the_relays_own_token_does_not_reach_the_target() -> None:
    async with relay(tokens=True) as to:
        shown = {**TO_B, "Authorization": "Bearer secret"}
        answers = [
            await to.ask("POST", "/", TO_B),
            await to.ask("POST", "/", {**TO_B, "Authorization": "Bearer guessed"}),
            await to.ask("POST", "/", shown),
            await to.ask("POST", "/", {**shown, "X-Dispatcher-Authorization": "Basic dTpw"}),
        ]
        stored = await to.stored()

    assert [answer.status for answer in answers] == [401, 401, 202, 202]
    found = [value for request in stored for name, value in request.headers if name == "authorization"]
    assert found == ["Basic dTpw"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_nothing_is_relayed_past_the_tokens_by_way_of_a_probe(path: str) -> None:
    async with relay(tokens=True) as to:
        plain, named = await to.ask("GET", path, {}), await to.ask("POST", path, TO_B, b"body")
        with pytest.raises(KeyNotFoundError):
            await to.queue.get("b:8080/x")
        stored = await to.stored()

    assert (plain.status, named.status, stored) == (200, 400, [])


async def test_nothing_is_relayed_by_way_of_the_plaintext_probes() -> None:
    async def forwards(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("relayed")(scope, receive, send)

    async with (
        probing(forwards, "127.0.0.1", 0) as port,
        ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/orders", headers=TO_B) as response,
    ):
        assert response.status == 404


@pytest.mark.parametrize(("headers", "expected"), [({}, (200, "metrics")), (TO_B, (202, None))])
async def test_metrics_are_the_relays_own_unless_a_target_is_named(
    headers: dict[str, str], expected: tuple[int, str | None]
) -> None:
    async with relay() as to:
        answer = await to.ask("GET", "/metrics", headers)

    assert answer.status == expected[0]
    assert expected[1] in (None, answer.document)
