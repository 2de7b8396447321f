"""For the tests of the console: an OIDC issuer where people log in, by the authorization-code flow with PKCE."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.oidc import Issuer
from workqueue.web.server import http_server

__all__ = ["LoginIssuer"]


class LoginIssuer(Issuer):
    """An issuer that logs everybody in, as `person`, and checks what RFC 7636 asks for.

    Args:
        asks: show a page with a button first, as those for people do.
    """

    def __init__(self, *, asks: bool = False) -> None:
        super().__init__()
        self._asks = asks
        self.asked: dict[str, str] = {}
        self.person: dict[str, object] = {"sub": "42", "email": "ada@example.com", "email_verified": True}

    @asynccontextmanager
    async def with_login(self) -> AsyncIterator[LoginIssuer]:
        pages = [("/in", self._in, ["GET", "POST"]), ("/token", self._redeem, ["POST"])]
        app = Starlette(routes=[Route(path, endpoint, methods=methods) for path, endpoint, methods in pages])
        async with self.served(), http_server(app, "127.0.0.1", 0) as port:
            own = f"http://localhost:{port}"  # another site than the console's 127.0.0.1, as an issuer is
            self.discovery |= {"authorization_endpoint": f"{own}/in", "token_endpoint": f"{own}/token"}
            yield self

    async def _in(self, request: Request) -> Response:
        self.asked = dict(request.query_params)
        if self._asks and request.method == "GET":
            return HTMLResponse(
                '<!doctype html><link rel="icon" href="data:,"><form method="post"><button>It is me</button></form>'
            )
        return RedirectResponse(f"{self.asked['redirect_uri']}?code=c0de&state={self.asked['state']}", 303)

    async def _redeem(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        right = challenge.decode().rstrip("=") == self.asked["code_challenge"] and form["code"] == "c0de"
        right = right and form["redirect_uri"] == self.asked["redirect_uri"]
        if not right or request.headers.get("authorization") != "Basic Y29uc29sZTpzM2NyZXQ=":
            return JSONResponse({"error": "invalid_grant"}, 400)
        claims: dict[str, Any] = {"aud": "console", "nonce": self.asked["nonce"]} | self.person
        return JSONResponse({"id_token": self.token(**claims)})
