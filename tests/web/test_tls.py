"""HTTPS handshakes, on both event loops: a program runs on uvloop where there is one."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.support.tls import Authority
from workqueue.access.security import ClientSecurity, ServerTLS
from workqueue.web.server import http_server

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@asynccontextmanager
async def served(authority: Authority) -> AsyncIterator[int]:
    pair = authority.issue("127.0.0.1")
    tls = ServerTLS(pair.certificate, pair.key)
    async with http_server(Starlette(routes=[Route("/", hello)]), "127.0.0.1", 0, tls=tls) as port:
        yield port


def ask(port: int, context: ssl.SSLContext) -> bool:
    """Whether a client is answered that greets the moment it is connected."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return connection.makefile().read().endswith("hello")


@LOOPS
def test_a_greeting_that_comes_with_the_connection_is_answered(new_loop: NewLoop, tmp_path: Path) -> None:
    async def answered() -> list[bool]:
        authority = Authority(tmp_path)
        context = ClientSecurity(authority.file).ssl_context()
        async with served(authority) as port:
            return [await asyncio.to_thread(ask, port, context) for _ in range(30)]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(answered()) == [True] * 30


def hang_up(port: int, data: bytes) -> None:
    stranger = socket.create_connection(("127.0.0.1", port), timeout=10)
    stranger.sendall(data)
    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stranger.close()


@pytest.mark.parametrize(
    "data", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"], ids=["", "half", "http"]
)
@LOOPS
def test_strangers_who_hang_up_in_a_handshake_leave_no_task_and_no_line_behind(
    new_loop: NewLoop, data: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def left() -> None:
        async with asyncio.timeout(60), served(Authority(tmp_path)) as port:
            before = asyncio.all_tasks()
            for _ in range(20):
                await asyncio.to_thread(hang_up, port, data)
            while others := asyncio.all_tasks() - before:
                await asyncio.wait(others)

    with caplog.at_level(logging.WARNING), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(left())
    assert caplog.records == []
