"""The HTTP server beside other work: it leaves the program its signals, and ends without cutting answers short."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.support.grpc import on_loop
from tests.support.processes import python
from tests.support.tls import Authority
from workqueue.access.security import ClientSecurity, ServerTLS
from workqueue.errors import InvalidSettingError
from workqueue.web.connection import Connection
from workqueue.web.server import http_server

DRAINING_PROGRAM = """
import asyncio, os, signal
from starlette.applications import Starlette
from workqueue.web.server import http_server

async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with http_server(Starlette(), "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
        await reader.read()  # who answers has started, which is when uvicorn takes signals over
        writer.close()
        os.kill(os.getpid(), signal.SIGTERM)
        await told.wait()
        print("draining", flush=True)
    print("drained", flush=True)

asyncio.run(main())
"""


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


HELLO = Starlette(routes=[Route("/", hello)])


def test_sigterm_reaches_the_program_and_not_the_server() -> None:
    answer = python("-c", DRAINING_PROGRAM)

    assert (answer.out, answer.code) == ("draining\ndrained\n", 0), answer.err


async def test_a_request_under_way_is_answered_before_the_server_ends() -> None:
    async def scenario() -> str:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request: Request) -> Response:
            arrived.set()
            await go_on.wait()
            return PlainTextResponse("in time")

        async def ask(port: int) -> str:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
                return await answer.text()

        async with http_server(Starlette(routes=[Route("/", slow)]), "127.0.0.1", 0) as port:
            asked = asyncio.create_task(ask(port))
            await arrived.wait()
            asyncio.get_running_loop().call_later(0.2, go_on.set)
        return await asked

    assert await scenario() == "in time"


async def ask(port: int, authority: Authority) -> str:
    """What a new connection hears that trusts `authority` only."""
    trust = ClientSecurity(authority.file).ssl_context()
    async with aiohttp.ClientSession() as session, session.get(f"https://127.0.0.1:{port}/", ssl=trust) as answer:
        return await answer.text()


@on_loop
async def test_it_serves_https_and_a_renewed_certificate_needs_no_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    pair = old.issue("127.0.0.1", "server")
    async with http_server(HELLO, "127.0.0.1", 0, tls=ServerTLS(pair.certificate, pair.key)) as port:
        assert await ask(port, old) == "hello"

        new.issue("127.0.0.1", "server")

        assert await ask(port, new) == "hello"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(port, old)


@on_loop
async def test_authorities_of_clients_are_followed_too(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    pair, client = ours.issue("127.0.0.1"), theirs.issue("me@example.com")
    accepted = tmp_path / "accepted.pem"
    accepted.write_bytes(ours.file.read_bytes())
    trust = ClientSecurity(ours.file, client.certificate, client.key).ssl_context()
    tls = ServerTLS(pair.certificate, pair.key, accepted)
    async with http_server(HELLO, "127.0.0.1", 0, tls=tls) as port, aiohttp.ClientSession() as session:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await session.get(f"https://127.0.0.1:{port}/", ssl=trust)

        accepted.write_bytes(theirs.file.read_bytes())

        async with session.get(f"https://127.0.0.1:{port}/", ssl=trust) as answer:
            assert await answer.text() == "hello"


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "localhost", ""])
@on_loop
async def test_everywhere_and_localhost_mean_ipv4_and_ipv6(host: str) -> None:
    async with http_server(HELLO, host, 0) as port, aiohttp.ClientSession() as session:
        for address in ("127.0.0.1", "[::1]"):
            async with session.get(f"http://{address}:{port}/") as answer:
                assert await answer.text() == "hello"


@on_loop
async def test_an_address_in_use_is_one_clear_error() -> None:
    async with http_server(HELLO, "127.0.0.1", 0) as port:
        with pytest.raises(InvalidSettingError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            await http_server(HELLO, "127.0.0.1", port).__aenter__()


def connections() -> list[Connection]:
    return [each for each in gc.get_objects() if isinstance(each, Connection) and not each.transport.is_closing()]


async def test_no_part_of_an_answer_waits_for_the_client_to_acknowledge_the_one_before() -> None:
    async with http_server(HELLO, "127.0.0.1", 0) as port, aiohttp.ClientSession() as session:
        await (await session.get(f"http://127.0.0.1:{port}/")).read()
        [connection] = connections()
        connected = connection.transport.get_extra_info("socket")

        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
