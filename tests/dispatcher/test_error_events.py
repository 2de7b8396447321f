"""Error events over real HTTP: what is in them, and brokers that are down, slow, or full of themselves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

import dispatcher
from dispatcher import Attempt, CloudEventErrors, Dispatcher, ErrorEvent, Failure
from tests.support.dispatching import memory, pass_time, settle_down, until
from tests.support.tls import Authority, Pair
from workqueue import InfrastructureError, NonRetriableError
from workqueue.access.security import ClientSecurity, ServerTLS
from workqueue.access.tokens import TokenFile
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)
OCCURRED = datetime(2026, 11, 1, 12, 0, 0, 123456, tzinfo=UTC)


class Sink:
    """A broker that keeps what it is sent, and answers with `statuses` in turn, then with 202."""

    def __init__(self) -> None:
        self.url = ""
        self.messages: list[HTTPMessage] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.hold: Callable[[], Awaitable[None]] | None = None

    async def take(self, request: web.Request) -> web.Response:
        self.messages.append(HTTPMessage({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        if self.hold is not None:
            await self.hold()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 202, headers=self.headers)

    def event(self, number: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
        made = from_http_event(self.messages[number])
        data = made.get_data()
        assert isinstance(data, dict)
        return made.get_attributes(), data


@asynccontextmanager
async def sink(tls: ServerTLS | None = None) -> AsyncIterator[Sink]:
    broker, app = Sink(), web.Application()
    app.router.add_post("/", broker.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = None if tls is None else tls.contexts().current()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    broker.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield broker
    finally:
        await runner.cleanup()


def event(key: str = "a", **failure: Any) -> ErrorEvent:
    return ErrorEvent(key, 3, Failure(**{"error": "ValueError: no", "action": "requeued", **failure}), OCCURRED)


def held(errors: CloudEventErrors) -> bool:
    """Whether events wait because the broker asked for it."""
    assert errors.broker is not None
    return errors.broker._held_until_us > 0


@pytest.mark.parametrize("structured", [False, True])
async def test_an_event_has_the_attributes_and_the_fields_that_its_consumers_expect(structured: bool) -> None:
    async with sink() as broker:
        errors = CloudEventErrors(broker.url, "my-wq", structured=structured)
        errors.send(event())
        await errors.flush()
        attributes, data = broker.event()

    assert (
        broker.messages[0]
        .headers["content-type"]
        .startswith("application/cloudevents+json" if structured else "application/json")
    )
    assert {name: attributes[name] for name in ("type", "source", "subject", "action", "time", "specversion")} == {
        "type": "dev.chainguard.workqueue.error.v1",
        "source": "my-wq",
        "subject": "a",
        "action": "requeued",
        "time": OCCURRED,
        "specversion": "1.0",
    }
    assert data == {
        "key": "a",
        "error": "ValueError: no",
        "attempts": 3,
        "action": "requeued",
        "occurAt": "2026-11-01T12:00:00.123456Z",
        "reconcilerName": "my-wq",
    }


async def test_the_reason_and_the_infrastructure_mark_are_there_when_they_apply() -> None:
    queue = memory()
    raised = {"a": NonRetriableError("no such customer"), "b": InfrastructureError("down")}

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise raised[key]

    for key in raised:
        await queue.queue(key)
    async with sink() as broker:
        await dispatcher.handle(queue, callback=reconcile, errors=CloudEventErrors(broker.url, "my-wq"))
        told = {data["key"]: data for _, data in (broker.event(0), broker.event(1))}

    assert told["a"]["nonRetriableReason"] == "no such customer"
    assert told["b"]["infrastructure"] is True
    assert "infrastructure" not in told["a"]
    assert "nonRetriableReason" not in told["b"]


@pytest.mark.parametrize("key", ['a b/ü%"', "x" * 1000, "\ud800", "日本"], ids=ascii)
async def test_any_key_can_be_told_of(key: str) -> None:
    async with sink() as broker:
        errors = CloudEventErrors(broker.url, "my-wq")
        errors.send(event(key))
        await errors.flush()
        attributes, data = broker.event()

    readable = key.encode("utf-8", "backslashreplace").decode()
    assert (attributes["subject"], data["key"]) == (readable, readable)


@pytest.mark.parametrize(
    ("statuses", "tries", "result"),
    [
        ([], 1, "sent"),
        ([503, 429], 3, "sent"),
        ([500, 500, 500], 4, "sent"),
        ([500, 500, 500, 500], 4, "failed"),
        ([404, 409, 408], 4, "sent"),
        ([400], 1, "failed"),
        ([301], 1, "failed"),
        ([304], 1, "failed"),
    ],
    ids=str,
)
async def test_a_broker_that_may_recover_is_tried_three_more_times(
    statuses: list[int], tries: int, result: str
) -> None:
    async with sink() as broker:
        broker.statuses = statuses
        errors = CloudEventErrors(broker.url, "my-wq")
        errors.send(event())
        await errors.flush()

        assert len(broker.messages) == tries
        assert {name for name, count in errors.results.items() if count} == {result}
        assert len({broker.event(number)[0]["id"] for number in range(tries)}) == 1


async def test_a_redirect_is_not_followed_and_nothing_is_shown_to_whom_it_names() -> None:
    async with sink() as broker, sink() as elsewhere:
        broker.statuses, broker.headers = [307], {"location": elsewhere.url}
        errors = CloudEventErrors(broker.url, "my-wq")
        errors.send(event())
        await errors.flush()

    assert (len(broker.messages), len(elsewhere.messages)) == (1, 0)
    assert errors.results == {"sent": 0, "failed": 1, "dropped": 0}


async def test_no_event_is_sent_before_the_time_that_a_broker_asks_for() -> None:
    clock = FakeClock()
    async with sink() as broker:
        broker.statuses, broker.headers = [429], {"retry-after": "7"}
        errors = CloudEventErrors(broker.url, "my-wq", clock=clock)
        errors.send(event("a"))
        await until(lambda: held(errors))
        errors.send(event("b"))
        for _ in range(69):
            clock.advance(SECOND / 10)
            await settle_down()
        early = len(broker.messages)
        clock.advance(SECOND)
        await until(lambda: errors.results["sent"] == 2)

    assert early == 1


async def test_events_are_lost_at_once_while_a_broker_asks_for_more_time_than_they_have(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    async with sink() as broker:
        broker.statuses, broker.headers = [503], {"retry-after": "3600"}
        errors = CloudEventErrors(broker.url, "my-wq", clock=clock)
        errors.send(event())
        await until(lambda: held(errors))
        await settle_down()
        clock.advance(SECOND / 10)
        await until(lambda: errors.results["failed"] == 1)

    assert "lost: the broker asks not to be called for another 60.0 min" in caplog.text


@pytest.fixture
def server(authority: Authority) -> Pair:
    return authority.issue("127.0.0.1")


async def test_a_broker_is_trusted_and_shown_what_a_target_is(
    authority: Authority, server: Pair, tmp_path: Path
) -> None:
    client, token = authority.issue("me@example.com"), tmp_path / "token"
    token.write_text("open-sesame\n")
    security = ClientSecurity(authority.file, client.certificate, client.key, TokenFile(token))

    async with sink(ServerTLS(server.certificate, server.key, authority.file)) as broker:
        errors = CloudEventErrors(broker.url, "my-wq", security=security)
        errors.send(event())
        await errors.flush()

    assert errors.results["sent"] == 1
    assert broker.messages[0].headers["authorization"] == "Bearer open-sesame"


async def test_a_broker_of_an_unknown_authority_gets_nothing(server: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async with sink(ServerTLS(server.certificate, server.key)) as broker:
        errors = CloudEventErrors(broker.url, "my-wq")
        errors.send(event())
        await errors.flush()

    assert (broker.messages, errors.results["failed"]) == ([], 1)
    assert "certificate verify failed" in caplog.text


async def test_a_token_that_cannot_be_had_for_a_moment_is_asked_for_again() -> None:
    class SoonThere:
        failures = iter([StoreUnavailableError("the metadata server is busy")])

        async def token(self) -> str:
            for failure in self.failures:
                raise failure
            return "open-sesame"

    async with sink() as broker:
        errors = CloudEventErrors(broker.url, "my-wq", security=ClientSecurity(token=SoonThere()))
        errors.send(event())
        await errors.flush()

    assert errors.results["sent"] == 1


async def test_a_broker_behind_a_proxy_is_reached_through_it() -> None:
    async with sink() as proxy:
        errors = CloudEventErrors("http://broker.example/", "my-wq", proxy=proxy.url)
        errors.send(event())
        await errors.flush()

    assert errors.results["sent"] == 1
    assert proxy.messages[0].headers["host"] == "broker.example"


async def test_a_broker_that_is_down_loses_the_event_aloud_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise ValueError("no")

    async with sink() as broker:
        url = broker.url
    await queue.queue("a")
    errors = CloudEventErrors(url, "my-wq")
    with caplog.at_level(logging.WARNING, "dispatcher.broker"):
        await dispatcher.handle(queue, callback=reconcile, errors=errors)

    assert errors.results == {"sent": 0, "failed": 1, "dropped": 0}
    lost = [record for record in caplog.records if record.name == "dispatcher.broker"]
    assert [record.__dict__["key"] for record in lost] == ["a"]
    assert (await queue.get("a")).attempts == 1


async def test_a_slow_broker_holds_up_a_round_for_five_seconds_at_most() -> None:
    clock = FakeClock()
    async with sink() as broker:
        broker.hold = asyncio.Event().wait  # type: ignore[assignment]
        errors = CloudEventErrors(broker.url, "my-wq", clock=clock)
        errors.send(event())
        flushing = asyncio.ensure_future(errors.flush())
        await until(lambda: bool(broker.messages))
        clock.advance(4 * SECOND)
        await settle_down()
        early = flushing.done()
        clock.advance(SECOND)
        await flushing
        await errors.give_up()

    assert (early, errors.results["dropped"]) == (False, 1)


async def test_an_event_is_given_up_after_thirty_seconds() -> None:
    clock = FakeClock()
    async with sink() as broker:
        broker.hold = asyncio.Event().wait  # type: ignore[assignment]
        errors = CloudEventErrors(broker.url, "my-wq", clock=clock)
        errors.send(event())
        await until(lambda: bool(broker.messages))
        clock.advance(30 * SECOND)
        await until(lambda: errors.results["failed"] == 1)


async def test_an_event_for_which_no_token_can_be_had_is_lost_aloud_like_any_other() -> None:
    class RefusesOnce:
        tokens: Iterator[str | Exception] = iter([FileNotFoundError("token"), "open-sesame"])

        async def token(self) -> str:
            token = next(self.tokens)
            if isinstance(token, Exception):
                raise token
            return token

    async with sink() as broker:
        errors = CloudEventErrors(broker.url, "my-wq", security=ClientSecurity(token=RefusesOnce()))
        for _ in range(2):
            errors.send(event())
            await errors.flush()

    assert errors.results == {"sent": 1, "failed": 1, "dropped": 0}


async def test_events_that_come_after_a_sink_has_given_up_are_sent() -> None:
    async with sink() as broker:
        errors = CloudEventErrors(broker.url, "my-wq")
        for _ in range(100):
            errors.send(event())
        await errors.give_up()
        errors.send(event())
        await errors.flush()

    assert errors.results == {"sent": 1, "failed": 0, "dropped": 100}


async def test_at_most_a_hundred_are_in_flight_and_a_thousand_wait_and_the_rest_is_dropped() -> None:
    over = asyncio.Event()
    async with sink() as broker:
        broker.hold = over.wait  # type: ignore[assignment]
        errors = CloudEventErrors(broker.url, "my-wq")
        for number in range(1250):
            errors.send(event(f"k{number}"))
        dropped = errors.results["dropped"]
        await until(lambda: len(broker.messages) == 100)
        over.set()
        await until(lambda: errors.results["sent"] == 1100)

    assert dropped == 150


async def test_without_a_url_nothing_is_sent() -> None:
    errors = CloudEventErrors("", "my-wq")

    errors.send(event())
    await errors.flush()

    assert errors.results == {"sent": 0, "failed": 0, "dropped": 0}


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("broker:8080", "my-wq"),
        ("ftp://broker", "my-wq"),
        ("http://", "my-wq"),
        ("https://host:99999/", "my-wq"),
        ("http://[::1", "my-wq"),
        ("http://.", "my-wq"),
        ("http://-x:9/", "my-wq"),
        ("http://ho_st..x/", "my-wq"),
        ("http://127.0.0.1:9\\@elsewhere/", "my-wq"),
        ("http://a\u00adb/", "my-wq"),
        ("http://x", ""),
    ],
)
def test_a_url_or_a_source_that_cannot_work_is_refused(url: str, source: str) -> None:
    with pytest.raises(InvalidSettingError):
        CloudEventErrors(url, source)


async def test_an_error_of_any_length_fits_into_an_event() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise ValueError("€" * 10_000)

    await queue.queue("a")
    async with sink() as broker:
        await dispatcher.handle(queue, callback=reconcile, errors=CloudEventErrors(broker.url, "my-wq"))

    assert len(json.loads(broker.messages[0].body)["error"].encode()) <= 4096


async def test_a_broker_that_hangs_holds_up_a_drain_for_five_seconds_and_then_loses_the_event() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise ValueError("no")

    await queue.queue("a")
    async with sink() as broker:
        broker.hold = asyncio.Event().wait  # type: ignore[assignment]
        errors = CloudEventErrors(broker.url, "my-wq", clock=queue.clock)
        loop = asyncio.ensure_future(Dispatcher(queue, reconcile, errors=errors).run())
        await until(lambda: bool(broker.messages))
        loop.cancel()
        await settle_down()
        await pass_time(queue, 4 * SECOND)
        early = loop.done()
        await pass_time(queue, SECOND)
        await asyncio.wait((loop,))

    assert (early, errors.results["dropped"]) == (False, 1)
