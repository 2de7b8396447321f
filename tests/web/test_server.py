"""The HTTP server beside other work: it leaves the program its signals, and ends without cutting answers short."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from workqueue.web.server import serving

REPOSITORY = Path(__file__).resolve().parents[2]

DRAINING_PROGRAM = """
import asyncio, os, signal
from starlette.applications import Starlette
from workqueue.web.server import serving

async def main():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with serving(Starlette(), "127.0.0.1", 0) as port:
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
    answer = subprocess.run(
        [sys.executable, "-c", DRAINING_PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )

    assert (answer.stdout, answer.returncode) == ("draining\ndrained\n", 0), answer.stderr


def test_a_request_under_way_is_answered_before_the_server_ends() -> None:
    async def scenario() -> str:
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request: Request) -> Response:
            arrived.set()
            await go_on.wait()
            return PlainTextResponse("in time")

        async def ask(port: int) -> str:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
                return await answer.text()

        async with serving(Starlette(routes=[Route("/", slow)]), "127.0.0.1", 0) as port:
            asked = asyncio.create_task(ask(port))
            await arrived.wait()
            asyncio.get_running_loop().call_later(0.2, go_on.set)
        return await asked

    assert asyncio.run(scenario()) == "in time"


def test_it_serves_https() -> None:
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)

    async def ask() -> str:
        async with (
            serving(HELLO, "127.0.0.1", 0, tls=ours) as port,
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{port}/", ssl=theirs, server_hostname="localhost") as answer,
        ):
            return await answer.text()

    assert asyncio.run(ask()) == "hello"
