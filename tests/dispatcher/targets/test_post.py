"""Keys posted to real HTTP servers: what handlers get, what their answers become, and what if they are not there."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

import dispatcher
from dispatcher import Dispatcher, DispatcherSettings, HandlerFailedError, HttpCallback, http_callback
from dispatcher.outage import TargetUnavailableError
from dispatcher.targets.post import outcome_of_status
from tests.support.dispatching import Recorder, clock_of, dead_letters, memory, state, states, until
from tests.support.tls import Authority, Pair
from workqueue import InfrastructureError, NonRetriableError, Options, RequeueAfter
from workqueue.access.security import ClientSecurity, ServerTLS
from workqueue.access.tokens import TokenFile
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidSettingError
from workqueue.options import NO_META
from workqueue.web.server import http_server

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
Handle = Callable[[Request], Awaitable[Response]]


def answering(status: int, text: str = "", **headers: str) -> Handle:
    async def handle(request: Request) -> Response:
        return PlainTextResponse(text, status, {name.replace("_", "-"): value for name, value in headers.items()})

    return handle


@asynccontextmanager
async def handler(handle: Handle, **options: Any) -> AsyncIterator[HttpCallback]:
    """A callback for a handler behind HTTP."""
    app = Starlette(routes=[Route("/handle", handle, methods=["GET", "POST"])])
    async with (
        http_server(app, "127.0.0.1", 0) as port,
        http_callback(f"http://127.0.0.1:{port}/handle", **options) as callback,
    ):
        yield callback


async def queued(*keys: str, options: Options = Options()) -> MemoryQueue:
    queue = memory()
    for key in keys:
        await queue.queue(key, options)
    return queue


async def test_a_handler_gets_the_key_as_a_cloud_event_and_its_attempt_as_json() -> None:
    seen: list[tuple[dict[str, str], Any]] = []

    async def handle(request: Request) -> Response:
        seen.append((dict(request.headers), json.loads(await request.body())))
        return Response()

    queue = await queued("café/1", options=Options(priority=7, payload=b"text", meta={"who": "me"}))
    async with handler(handle, source="builds", clock=clock_of(queue)) as callback:
        await dispatcher.handle(queue, callback=callback, max_run_time=MINUTE)

    [(headers, document)] = seen
    assert {name: headers[f"ce-{name}"] for name in ("specversion", "source", "type", "subject")} == {
        "specversion": "1.0",
        "source": "builds",
        "type": "dev.chainguard.workqueue.process.v1",
        "subject": "caf%C3%A9/1",
    }
    assert headers["content-type"] == "application/json"
    assert (document["key"], document["attempts"], document["priority"]) == ("café/1", 1, 7)
    assert (document["payload"], document["meta"], document["remainingSeconds"]) == ("text", {"who": "me"}, 60)
    assert await states(queue, "café/1") == {"café/1": "UNKNOWN"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, None),
        (204, None),
        (301, HandlerFailedError),
        (400, NonRetriableError),
        (404, NonRetriableError),
        (408, HandlerFailedError),
        (409, NonRetriableError),
        (425, HandlerFailedError),
        (429, HandlerFailedError),
        (499, NonRetriableError),
        (500, HandlerFailedError),
        (501, HandlerFailedError),
        (502, TargetUnavailableError),
        (503, TargetUnavailableError),
        (504, TargetUnavailableError),
        (599, HandlerFailedError),
    ],
)
def test_a_status_becomes_an_outcome(status: int, expected: type[Exception] | None) -> None:
    if expected is None:
        assert outcome_of_status(status, "", None, marked=False) is None
        return
    with pytest.raises(expected, match=f"the handler answered {status}: no") as raised:
        outcome_of_status(status, "no", None, marked=False)
    assert type(raised.value) is expected


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_answer_that_the_handler_marked_as_its_own_is_no_outage(status: int) -> None:
    with pytest.raises(InfrastructureError) as raised:
        outcome_of_status(status, "my database is down", None, marked=True)
    assert not isinstance(raised.value, TargetUnavailableError)


@pytest.mark.parametrize("status", [200, 202, 404, 429, 500, 503])
def test_an_answer_that_says_when_to_come_back_is_a_requeue(status: int) -> None:
    outcome = outcome_of_status(status, "", MINUTE, marked=False)

    assert isinstance(outcome, RequeueAfter)
    assert outcome.delay == MINUTE


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("60", 60),
        ("0", 1),
        ("999999999999999999999", 365 * 24 * 3600),
        ("Thu, 31 Jan 2030 12:01:00 GMT", 60),
        ("Thu, 31 Jan 2030 11:00:00 GMT", 1),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
    ],
)
async def test_retry_after_is_seconds_or_a_date_and_anything_else_counts_as_absent(
    value: str, seconds: int | None
) -> None:
    queue = await queued("a")
    clock = clock_of(queue)
    clock.jump_wall(datetime(2030, 1, 31, 12, tzinfo=UTC) - datetime.fromtimestamp(clock.wall_us() / 1e6, UTC))

    async def handle(request: Request) -> Response:
        answer = PlainTextResponse("", 200)
        answer.raw_headers.append((b"retry-after", value.encode()))
        return answer

    async with handler(handle, clock=clock) as callback:
        await dispatcher.handle(queue, callback=callback)

    not_before = (await state(queue, "a")).not_before
    assert not_before == (None if seconds is None else datetime(2030, 1, 31, 12, tzinfo=UTC) + seconds * SECOND)


async def test_what_the_handler_says_is_kept_with_the_failure_but_not_all_of_it() -> None:
    queue = await queued("a")

    async with handler(answering(500, "out of disk " + "x" * 10_000)) as callback:
        await dispatcher.handle(queue, callback=callback, max_retry=1)

    error = (await dead_letters(queue))["a"]
    assert error.startswith("HandlerFailedError: the handler answered 500: out of disk xxx")
    assert len(error) < 1200


async def test_an_answer_without_end_does_not_hold_the_slot() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"no " * 1000
            await asyncio.sleep(0)

    async def handle(request: Request) -> Response:
        return StreamingResponse(endless(), 500)

    queue = await queued("a")
    async with handler(handle) as callback:
        await dispatcher.handle(queue, callback=callback)

    assert (await state(queue, "a")).attempts == 1


async def test_a_redirect_is_not_followed() -> None:
    methods: list[str] = []

    async def handle(request: Request) -> Response:
        methods.append(request.method)
        return RedirectResponse("/handle", 302)

    queue, events = await queued("a"), Recorder()
    async with handler(handle) as callback:
        await dispatcher.handle(queue, callback=callback, errors=events)

    assert methods == ["POST"]
    assert "answered 302" in events.events[0].failure.error


async def test_a_refused_connection_spends_no_attempt() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    queue = await queued("a")

    async with http_callback(f"http://127.0.0.1:{port}/") as callback, Dispatcher(queue, callback) as running:
        await until(lambda: running.metrics.outcomes["released"] > 0)
        running.stop()

    assert (await state(queue, "a")).attempts == 0


async def test_a_host_that_has_no_address_is_an_outage() -> None:
    async with http_callback("http://no-such-host.invalid/") as callback:
        with pytest.raises(TargetUnavailableError, match=r"no-such-host\.invalid") as raised:
            await callback("a", attempt())
    assert raised.value.trouble == "unsent"


def server_tls(pair: Pair) -> ServerTLS:
    return ServerTLS(pair.certificate, pair.key)


def attempt() -> Any:
    class Attempt:
        payload, priority, attempts, queued_time = None, 0, 1, None
        meta: Mapping[str, str] = NO_META

        def remaining(self) -> timedelta:
            return MINUTE

    return Attempt()


async def test_a_connection_that_breaks_is_an_outage_in_which_the_handler_was_reached() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server, http_callback(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as callback:
        with pytest.raises(TargetUnavailableError) as raised:
            await callback("a", attempt())
    assert raised.value.trouble == "broken"


async def test_a_handler_that_takes_too_long_is_given_up() -> None:
    left = asyncio.Event()

    async def handle(request: Request) -> Response:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.set()
        return Response()

    queue, events = await queued("a"), Recorder()
    clock, settings = clock_of(queue), DispatcherSettings(max_run_time=MINUTE)
    async with handler(handle) as callback, Dispatcher(queue, callback, settings, errors=events) as running:
        while running.metrics.outcomes["retried"] == 0:
            clock.advance(SECOND)
            await asyncio.sleep(0.01)
        await left.wait()

    assert events.events[0].failure.error.startswith("TimeoutError")


@pytest.mark.parametrize("token", ["", "secret"])
async def test_a_token_is_shown_to_the_handler(token: str, tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def handle(request: Request) -> Response:
        seen.append(request.headers.get("authorization"))
        return Response()

    (tmp_path / "token").write_text("secret")
    security = ClientSecurity(token=TokenFile(tmp_path / "token")) if token else None
    queue = await queued("a")
    async with handler(handle, security=security) as callback:
        await dispatcher.handle(queue, callback=callback)

    assert seen == [f"Bearer {token}" if token else None]


async def test_a_handler_behind_tls_is_checked_against_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    app = Starlette(routes=[Route("/", answering(200), methods=["POST"])])
    tls = server_tls(authority.issue("127.0.0.1"))
    async with http_server(app, "127.0.0.1", 0, tls=tls) as port:
        url = f"https://127.0.0.1:{port}/"
        async with http_callback(url, security=ClientSecurity(ca=authority.file)) as trusting:
            assert await trusting("a", attempt()) is None
        async with http_callback(url) as doubting:
            with pytest.raises(TargetUnavailableError, match="ertificate"):
                await doubting("a", attempt())


@pytest.mark.parametrize("renewed", ["certificate", "authority"])
async def test_a_handler_is_called_with_what_the_files_hold_now(renewed: str, tmp_path: Path) -> None:
    known, unknown = Authority(tmp_path, "known"), Authority(tmp_path, "unknown")
    app = Starlette(routes=[Route("/", answering(200), methods=["POST"])])
    pair, trusted = known.issue("127.0.0.1"), tmp_path / "trusted.pem"
    mine = (unknown if renewed == "certificate" else known).issue("me@example.com", "mine")
    trusted.write_bytes((unknown if renewed == "authority" else known).file.read_bytes())
    security = ClientSecurity(trusted, mine.certificate, mine.key)
    tls = ServerTLS(pair.certificate, pair.key, known.file)
    async with (
        http_server(app, "127.0.0.1", 0, tls=tls) as port,
        http_callback(f"https://127.0.0.1:{port}/", security=security) as callback,
    ):
        with pytest.raises(TargetUnavailableError):
            await callback("a", attempt())
        known.issue("me@example.com", "mine")
        trusted.write_bytes(known.file.read_bytes())

        assert await callback("a", attempt()) is None


@pytest.mark.parametrize(
    "url", ["", "handler", "ftp://host/", "http://", "http:///path", "http://host:99999/", "grpc://host:1"]
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettingError, match="no URL to post keys to"):
        http_callback(url)


def test_a_token_is_not_sent_to_another_machine_in_plaintext(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")

    with pytest.raises(InvalidSettingError, match="plaintext"):
        http_callback("http://handler.example/", security=ClientSecurity(token=TokenFile(tmp_path / "token")))
