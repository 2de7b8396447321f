"""Calls of real servers: what they get, what their answers mean, and which addresses are never connected to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import ASGIApp

from dispatcher.outage import TargetUnavailableError
from dispatcher.relay.answer import Answer
from dispatcher.relay.headers import Headers
from dispatcher.relay.request import RelayedRequest
from dispatcher.relay.sender import Sender
from dispatcher.relay.target import ANY_TARGET, AllowedTargets, Target
from tests.support.tls import Authority
from workqueue.access.security import ClientSecurity, ServerTLS
from workqueue.web.server import http_server

MINUTE = timedelta(minutes=1)


def request_to(
    host: str, port: int, *, path: str = "/", headers: Headers = (), timeout: timedelta = MINUTE, scheme: str = "http"
) -> RelayedRequest:
    return RelayedRequest("POST", Target(scheme, host, port), path, headers, b"body", timeout, 1)


@asynccontextmanager
async def target(
    answer: Callable[[Request], Response] = lambda request: Response(),
) -> AsyncIterator[tuple[int, list[Request]]]:
    """A server; yields its port and the requests that it got."""
    got: list[Request] = []

    async def app(scope: object, receive: object, send: object) -> None:
        request = Request(scope, receive)  # type: ignore[arg-type]
        await request.body()
        got.append(request)
        await answer(request)(scope, receive, send)  # type: ignore[arg-type]

    async with http_server(app, "127.0.0.1", 0) as port:
        yield port, got


async def sent(sender: Sender, request: RelayedRequest) -> Answer | str:
    """The answer, or what went wrong."""
    try:
        return await sender.send(request, "made-up")
    except TargetUnavailableError as error:
        return f"{error.trouble}: {error}"


async def test_a_request_goes_out_as_it_was_with_an_idempotency_key_added() -> None:
    async with target() as (port, got), Sender(ANY_TARGET) as sender:
        await sender.send(
            request_to("127.0.0.1", port, path="/a%2Fb?q=%20", headers=[("x", "1"), ("x", "2")]), "made-up"
        )

    [request] = got
    assert (request.scope["raw_path"], request.scope["query_string"]) == (b"/a%2Fb", b"q=%20")
    assert [(name, value) for name, value in request.headers.items() if name != "host"] == [
        ("x", "1"),
        ("x", "2"),
        ("idempotency-key", "made-up"),
        ("content-length", "4"),
    ]


async def test_an_idempotency_key_of_the_caller_stays() -> None:
    async with target() as (port, got), Sender(ANY_TARGET) as sender:
        await sender.send(request_to("127.0.0.1", port, headers=[("idempotency-key", "own")]), "made-up")

    assert got[0].headers.getlist("idempotency-key") == ["own"]


async def test_an_answer_is_kept_as_far_as_an_error_shows_it() -> None:
    said = PlainTextResponse("é" * 4096, 404, {"retry-after": "7"})
    async with target(lambda request: said) as (port, _), Sender(ANY_TARGET) as sender:
        answer = await sender.send(request_to("127.0.0.1", port), "made-up")

    assert (answer.status, answer.retry_after, len(answer.text.encode())) == (404, "7", 4096)


async def test_a_redirect_is_not_followed() -> None:
    async with target() as (elsewhere, got), Sender(ANY_TARGET) as sender:
        redirect = RedirectResponse(f"http://127.0.0.1:{elsewhere}/", 307)
        async with target(lambda request: redirect) as (port, _):
            answer = await sender.send(request_to("127.0.0.1", port), "made-up")

    assert (answer.status, got) == (307, [])


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 1000
        await asyncio.sleep(0)


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_without_end_is_not_read_to_its_end(status: int) -> None:
    async with target(lambda request: StreamingResponse(endless(), status)) as (port, _), Sender(ANY_TARGET) as sender:
        answer = await sender.send(request_to("127.0.0.1", port), "made-up")

    assert answer.status == status


async def silent_after_the_head() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.Event().wait()


async def test_a_target_that_said_yes_has_the_request_even_if_its_body_never_ends() -> None:
    def answer(request: Request) -> Response:
        return StreamingResponse(silent_after_the_head(), 201)

    async with target(answer) as (port, _), Sender(ANY_TARGET) as sender:
        said = await sender.send(request_to("127.0.0.1", port, timeout=timedelta(milliseconds=300)), "made-up")

    assert said.status == 201


async def test_a_target_that_takes_too_long_is_unavailable() -> None:
    async def hang(scope: object, receive: object, send: object) -> None:
        await asyncio.Event().wait()

    async with http_server(hang, "127.0.0.1", 0) as port, Sender(ANY_TARGET) as sender:
        said = await sent(sender, request_to("127.0.0.1", port, timeout=timedelta(milliseconds=50)))

    assert said == f"broken: http://127.0.0.1:{port}: no answer within 0:00:00.050000"


async def test_a_target_that_is_gone_is_unavailable() -> None:
    async with http_server(PlainTextResponse(), "127.0.0.1", 0) as port:
        pass
    async with Sender(ANY_TARGET) as sender:
        said = await sent(sender, request_to("127.0.0.1", port))

    assert str(said).startswith(f"unsent: http://127.0.0.1:{port}: ClientConnectorError")


async def test_a_name_that_turned_into_loopback_since_it_was_judged_is_not_connected_to() -> None:
    answers = iter([["203.0.113.1"], ["127.0.0.1"]])
    judged: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        judged.append(host)
        return next(answers)

    async with target() as (port, got), Sender(AllowedTargets(["evil.example"]), look_up=rebinding) as sender:
        rebinding("evil.example", port)  # whoever looked before it was sent saw a public address
        said = await sent(sender, request_to("evil.example", port))

    assert "evil.example stands for 127.0.0.1, which needs an entry of its own" in str(said)
    assert (judged, got) == (["evil.example", "evil.example"], [])


async def test_of_the_addresses_of_a_name_only_those_are_used_that_may_be() -> None:
    allowed = AllowedTargets(["b.example", "127.0.0.1"])
    async with target() as (port, got), Sender(allowed, look_up=lambda *_: ["169.254.169.254", "127.0.0.1"]) as sender:
        answer = await sender.send(request_to("b.example", port), "made-up")

    assert (answer.status, got[0].headers["host"]) == (200, f"b.example:{port}")


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "10.0.0.1"])
async def test_an_address_that_left_the_list_since_its_request_was_stored_is_not_called(host: str) -> None:
    async with Sender(AllowedTargets(["b.example"])) as sender:
        said = await sent(sender, request_to(host, 80))

    assert said == f"unsent: {host}:80 is not among the allowed targets"


async def test_a_name_server_that_hangs_holds_up_no_other_name() -> None:
    hanging = threading.Event()

    def look_up(host: str, port: int) -> list[str]:
        if host.startswith("dead"):
            hanging.wait(30)
        return ["127.0.0.1"]

    async with target() as (port, _), Sender(ANY_TARGET, look_up=look_up) as sender:
        dead = [asyncio.create_task(sent(sender, request_to(f"dead{number}.example", port))) for number in range(64)]
        await asyncio.sleep(0)
        answer = await sender.send(request_to("b.example", port), "made-up")
        for each in dead:
            each.cancel()
        hanging.set()

    assert answer.status == 200


async def test_a_name_without_an_address_is_unavailable() -> None:
    def look_up(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    async with Sender(ANY_TARGET, look_up=look_up) as sender:
        said = await sent(sender, request_to("nowhere.example", 80))

    assert str(said).startswith("unsent: http://nowhere.example:80: ClientConnectorDNSError")


async def test_a_target_is_checked_against_the_authorities_that_are_trusted(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = ours.issue("127.0.0.1")
    app: ASGIApp = PlainTextResponse("ok")
    async with http_server(app, "127.0.0.1", 0, tls=ServerTLS(pair.certificate, pair.key)) as port:
        request = request_to("127.0.0.1", port, scheme="https")
        said = []
        for authority in (ours, other):
            async with Sender(ANY_TARGET, ClientSecurity(ca=authority.file)) as sender:
                said.append(await sent(sender, request))

    assert said[0] == Answer(200)
    assert "CERTIFICATE_VERIFY_FAILED" in str(said[1])


@pytest.mark.parametrize("renewed", ["certificate", "authority"])
async def test_a_target_is_called_with_what_the_files_hold_now(renewed: str, tmp_path: Path) -> None:
    known, unknown = Authority(tmp_path, "known"), Authority(tmp_path, "unknown")
    pair, trusted = known.issue("127.0.0.1"), tmp_path / "trusted.pem"
    mine = (unknown if renewed == "certificate" else known).issue("me@example.com", "mine")
    trusted.write_bytes((unknown if renewed == "authority" else known).file.read_bytes())
    tls, app = ServerTLS(pair.certificate, pair.key, known.file), PlainTextResponse("ok")
    async with (
        http_server(app, "127.0.0.1", 0, tls=tls) as port,
        Sender(ANY_TARGET, ClientSecurity(trusted, mine.certificate, mine.key)) as sender,
    ):
        request = request_to("127.0.0.1", port, scheme="https")
        before = await sent(sender, request)
        known.issue("me@example.com", "mine")
        trusted.write_bytes(known.file.read_bytes())

        assert isinstance(before, str)
        assert await sent(sender, request) == Answer(200)
