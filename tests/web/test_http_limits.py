"""Strangers who send too much, too slowly, or nothing at all: each is cut off, and probes are answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.grpc import on_loop
from tests.support.tls import Authority
from workqueue.access.security import ServerTLS
from workqueue.web.http_limits import HttpLimits
from workqueue.web.server import http_server

SOON = timedelta(milliseconds=200)
NEVER = timedelta(hours=1)


def limits(**changes: object) -> HttpLimits:
    """Small ones; nothing takes too long but what a test says."""
    patient = {"head_time": NEVER, "body_time": NEVER, "idle_time": NEVER, "stall_time": NEVER}
    return HttpLimits(**{"head_bytes": 1000, "body_bytes": 1000, "connections": 8} | patient | changes)  # type: ignore[arg-type]


@dataclass
class App:
    """Answers with how much it was sent; `/hold` once it may go on, `/much` with more than a socket takes."""

    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    holding: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    given_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def measure(self, request: Request) -> Response:
        return PlainTextResponse(f"{len(await request.body())} bytes")

    async def hold(self, request: Request) -> Response:
        self.holding.release()
        await self.go_on.wait()
        return PlainTextResponse("held")

    async def much(self, request: Request) -> Response:
        async def content() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield b"x" * 100_000
            self.given_up.set()

        return StreamingResponse(content())

    @asynccontextmanager
    async def served(self, limits: HttpLimits, tls: ServerTLS | None = None) -> AsyncIterator[int]:
        paths = {"/": self.measure, "/healthz": self.measure, "/hold": self.hold, "/much": self.much}
        routes = [Route(path, endpoint, methods=["GET", "POST"]) for path, endpoint in paths.items()]
        async with http_server(Starlette(routes=routes), "127.0.0.1", 0, limits=limits, tls=tls) as port:
            yield port


class Stranger:
    """A connection of somebody who writes what he likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def send_without_end(self, data: bytes) -> None:
        """Until the server hangs up."""
        with contextlib.suppress(ConnectionError):
            while not self._reader.at_eof():
                self._writer.write(data)
                await self._writer.drain()
                await asyncio.sleep(0)

    async def heard(self) -> str:
        """The first line of all that the server said before it hung up."""
        with contextlib.suppress(ConnectionError):
            return (await self._reader.read()).decode().partition("\r\n")[0]
        return ""

    async def rest(self, body: str) -> bool:
        """Whether the rest of the answer ends in `body`."""
        return (await self._reader.readuntil(body.encode())).endswith(body.encode())

    async def answer(self) -> str:
        """The first line of an answer, for which the server need not hang up."""
        return (await self._reader.readline()).decode().strip()


@asynccontextmanager
async def stranger(port: int) -> AsyncIterator[Stranger]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Stranger(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def probe(port: int) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as response:
        return response.status


HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on", "status"),
    [
        (HEAD, b"x-more: y\r\n", "431 Request Header Fields Too Large"),
        (HEAD + b"x-long: ", b"y" * 500, "431 Request Header Fields Too Large"),
        (b"GET /", b"y" * 500, "431 Request Header Fields Too Large"),
        (CHUNKED, b"64\r\n" + b"x" * 100 + b"\r\n", "413 Request Entity Too Large"),
        (CHUNKED, b"1;" + b"x" * 400 + b"\r\nx\r\n", "413 Request Entity Too Large"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"x-trailer: y\r\n", "413 Request Entity Too Large"),
    ],
    ids=["headers", "header", "url", "chunks", "chunk extensions", "trailers"],
)
@on_loop
async def test_what_has_no_end_is_refused_once_it_is_too_much(begins: bytes, goes_on: bytes, status: str) -> None:
    async with App().served(limits()) as port, stranger(port) as it:
        it.send(begins)
        sending = asyncio.ensure_future(it.send_without_end(goes_on))

        assert await it.heard() in (f"HTTP/1.1 {status}", "")  # the answer may be lost in a reset
        sending.cancel()
        assert await probe(port) == 200


@on_loop
async def test_a_body_that_is_announced_too_large_is_refused_before_it_comes() -> None:
    async with App().served(limits()) as port, stranger(port) as it:
        it.send(HEAD + b"content-length: 1001\r\n\r\n")

        assert await it.heard() == f"HTTP/1.1 413 {HTTPStatus(413).phrase}"  # Python 3.13 has a new name for it


@on_loop
async def test_what_is_within_the_limits_is_answered_also_on_a_connection_that_is_used_again() -> None:
    async with App().served(limits()) as port, stranger(port) as it:
        for _ in range(3):
            it.send(HEAD + b"x-long: " + b"y" * 900 + b"\r\n\r\n")
            assert await it.answer() == "HTTP/1.1 200 OK"
            assert await it.rest("0 bytes")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", ""),
        (HEAD, "HTTP/1.1 408 Request Timeout"),
        (HEAD + b"content-length: 100\r\n\r\nx", "HTTP/1.1 408 Request Timeout"),
        (CHUNKED + b"1\r\nx\r\n", "HTTP/1.1 408 Request Timeout"),
        (HEAD + b"content-length: 0\r\n\r\n", "HTTP/1.1 200 OK"),
        (HEAD + b"content-length: 0\r\n\r\n" + HEAD, "HTTP/1.1 200 OK"),
    ],
    ids=["silence", "half a head", "half a body", "half a chunked body", "no second request", "half a second request"],
)
@on_loop
async def test_what_takes_too_long_is_ended(sent: bytes, status: str) -> None:
    slow = limits(head_time=SOON, body_time=SOON, idle_time=timedelta(seconds=1))
    async with App().served(slow) as port, stranger(port) as it:
        it.send(sent)

        assert await it.heard() == status


@pytest.mark.parametrize("drop", [b"x: y\r\n", b"\r\n"], ids=["headers", "empty lines"])
@on_loop
async def test_drop_by_drop_is_too_slow_as_well(drop: bytes) -> None:
    async with App().served(limits(head_time=SOON)) as port, stranger(port) as it:
        it.send(b"" if drop == b"\r\n" else HEAD)
        listening = asyncio.ensure_future(it.heard())
        while not listening.done():
            it.send(drop)
            await asyncio.wait((listening,), timeout=0.02)

        assert listening.result() in ("HTTP/1.1 408 Request Timeout", "")


@on_loop
async def test_an_answer_that_nobody_reads_is_given_up() -> None:
    app = App()
    async with app.served(limits(stall_time=SOON)) as port, stranger(port) as it:
        it.send(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")

        await app.given_up.wait()


@on_loop
async def test_silent_connections_make_way_for_a_probe() -> None:
    async with App().served(limits(connections=3)) as port, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(stranger(port)) for _ in range(9)]

        assert await probe(port) == 200
        assert [await each.heard() for each in silent[:6]] == [""] * 6


@on_loop
async def test_requests_that_are_under_way_leave_room_for_probes() -> None:
    app = App()
    async with app.served(limits(connections=4)) as port, contextlib.AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(stranger(port)) for _ in range(2)]
        for each in busy:
            each.send(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
            await app.holding.acquire()
        async with stranger(port) as one_more:
            one_more.send(b"GET /hold HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await one_more.answer() == "HTTP/1.1 503 Service Unavailable"

        assert await probe(port) == 200
        app.go_on.set()
        assert [await each.answer() for each in busy] == ["HTTP/1.1 200 OK"] * 2


@on_loop
async def test_a_tls_handshake_that_never_comes_makes_way_and_ends(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("127.0.0.1")
    tls = ServerTLS(pair.certificate, pair.key)
    async with App().served(limits(connections=2, head_time=SOON), tls) as port, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(stranger(port)) for _ in range(4)]

        assert [await each.heard() for each in silent] == [""] * 4


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
@on_loop
async def test_silent_connections_do_not_hold_up_the_end_of_a_server(
    encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workqueue.web.server._GRACE_SECONDS", 3600.0)
    pair = Authority(tmp_path).issue("127.0.0.1")
    tls = ServerTLS(pair.certificate, pair.key) if encrypted else None
    async with contextlib.AsyncExitStack() as stack:
        async with App().served(limits(), tls) as port:
            silent = [await stack.enter_async_context(stranger(port)) for _ in range(4)]
            silent[0].send(b"GET / HT")
        for each in silent:
            await each.heard()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf",
        b"GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /\u00e9 HTTP/1.1\r\nhost: x\r\n\r\n".encode("latin-1"),
    ],
    ids=["TLS", "websocket", "star", "connect", "two lengths", "hangs up", "bad url", "not ascii"],
)
@on_loop
async def test_strangers_write_nothing_into_the_log(nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with App().served(limits(head_time=SOON)) as port:
            async with stranger(port) as it:
                it.send(nonsense)
            assert await probe(port) == 200

    assert caplog.records == []
