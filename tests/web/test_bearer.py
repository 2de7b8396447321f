"""The same tokens and certificates before HTTP servers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.grpc import on_loop
from tests.support.tls import Authority
from workqueue.access.security import ClientSecurity, ServerTLS
from workqueue.access.tokens import StaticTokens, TokenCheckUnavailableError
from workqueue.web.bearer import BearerTokens
from workqueue.web.server import http_server


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("inside")


APP = Starlette(routes=[Route(path, answer) for path in ("/", "/healthz", "/readyz", "/metrics")])


@asynccontextmanager
async def guarded(app: ASGIApp | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a server that asks for the token `secret`."""
    behind = app or BearerTokens(APP, StaticTokens(["secret"]))
    async with (
        http_server(behind, "127.0.0.1", 0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        yield session


@on_loop
async def test_a_valid_token_lets_a_request_in() -> None:
    async with guarded() as session, session.get("/", headers={"Authorization": "Bearer secret"}) as response:
        assert (response.status, await response.text()) == (200, "inside")


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz/", "/nowhere"])
@pytest.mark.parametrize(
    "header", ["", "Bearer wrong", "Basic secret", "Bearer \xe9"], ids=["none", "wrong", "kind", "é"]
)
@on_loop
async def test_anything_else_is_unauthorised(path: str, header: str) -> None:
    async with guarded() as session, session.get(path, headers={"Authorization": header}) as response:
        text = await response.text()

    assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "inside" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@on_loop
async def test_probes_need_no_token(path: str) -> None:
    async with guarded() as session, session.get(path) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [("/queue/healthz", 200), ("/queue/readyz", 200), ("/queue/", 401), ("/queue/metrics", 401), ("/healthz", 404)],
)
@on_loop
async def test_an_app_that_is_mounted_in_another_asks_for_tokens_as_it_does_alone(path: str, status: int) -> None:
    mounting = Starlette(routes=[Mount("/queue", BearerTokens(APP, StaticTokens(["secret"])))])
    async with guarded(mounting) as session, session.get(path) as response:
        assert response.status == status


@on_loop
async def test_a_path_that_only_ends_like_a_probe_is_none() -> None:
    mounting = Starlette(routes=[Mount("/queue", BearerTokens(APP, StaticTokens(["secret"])))])
    async with guarded(mounting) as session, session.get("/queue/x/healthz") as response:
        assert response.status == 401


@on_loop
async def test_two_authorization_headers_are_refused_even_if_one_is_right() -> None:
    both = [("Authorization", "Bearer wrong"), ("Authorization", "Bearer secret")]
    async with guarded() as session, session.get("/", headers=both) as response:
        assert response.status == 401
        assert "more than one" in await response.text()


@on_loop
async def test_a_token_that_cannot_be_checked_is_not_called_wrong() -> None:
    class Unsure:
        async def verify(self, token: str) -> None:
            raise TokenCheckUnavailableError("the issuer does not answer")

    headers = {"Authorization": "Bearer x"}
    async with guarded(BearerTokens(APP, Unsure())) as session, session.get("/", headers=headers) as response:
        assert (response.status, await response.text()) == (503, "the issuer does not answer\n")
        assert "WWW-Authenticate" not in response.headers


@on_loop
async def test_lifespan_events_reach_the_app() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(str(scope["type"]))

    async def nothing(*_: object) -> Any: ...

    await BearerTokens(app, StaticTokens(["secret"]))({"type": "lifespan"}, nothing, nothing)

    assert seen == ["lifespan"]


@on_loop
async def test_mtls_holds_for_http_as_well(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, me = authority.issue("127.0.0.1"), authority.issue("me@example.com")
    tls = ServerTLS(server.certificate, server.key, authority.file)
    async with http_server(APP, "127.0.0.1", 0, tls=tls) as port, aiohttp.ClientSession() as session:
        mine = ClientSecurity(authority.file, me.certificate, me.key).ssl_context()
        async with session.get(f"https://127.0.0.1:{port}/", ssl=mine) as response:
            assert await response.text() == "inside"
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await session.get(f"https://127.0.0.1:{port}/", ssl=ClientSecurity(authority.file).ssl_context())
