"""For the security tests: an OIDC issuer, and a metadata server, that answer on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from workqueue.web.server import http_server

__all__ = ["Issuer", "MetadataServer"]


class Issuer:
    """Signs tokens and publishes its keys; `url` is known once it is served."""

    def __init__(self) -> None:
        self.url = ""
        self.down = False
        self.fetches = 0
        self.discovery: dict[str, object] = {}
        self.answer: Response | None = None  # instead of the keys
        self.details: dict[str, str | None] = {"use": "sig"}  # of each key; what is None is left out
        self._keys: dict[str, Any] = {}
        self.add_key("first")

    def add_key(self, kid: str) -> None:
        self._keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def add_rsa_key(self, kid: str) -> None:
        self._keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def token(self, kid: str | None = "first", algorithm: str = "", **changes: object) -> str:
        """A good token for `https://me`, but for what is changed; a claim changed to None is left out."""
        now = datetime.now(UTC)
        claims = {
            "iss": self.url,
            "aud": "https://me",
            "sub": "producer",
            "iat": now,
            "exp": now + timedelta(hours=1),
        } | changes
        key = self._keys[kid or "first"]
        algorithm = algorithm or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
        headers = {"kid": kid} if kid else None
        return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm, headers)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Issuer]:
        paths = {"/.well-known/openid-configuration": self._discover, "/keys": self._publish}
        app = Starlette(routes=[Route(path, endpoint) for path, endpoint in paths.items()])
        async with http_server(app, "127.0.0.1", 0) as port:
            self.url = f"http://127.0.0.1:{port}"
            self.discovery = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
            yield self

    async def _discover(self, request: Request) -> Response:
        return JSONResponse(self.discovery, 503 if self.down else 200)

    async def _publish(self, request: Request) -> Response:
        self.fetches += 1
        return self.answer or JSONResponse({"keys": [self.published(kid) for kid in self._keys]})

    def published(self, kid: str) -> dict[str, object]:
        """The public half of a key, as a JWK."""
        key = self._keys[kid]
        kind: Any = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        published = json.loads(kind.to_jwk(key.public_key())) | {"kid": kid} | self.details
        return {name: value for name, value in published.items() if value is not None}


class MetadataServer:
    """Answers as the one of Google Cloud does, with the tokens of an issuer."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self.asked: list[dict[str, str]] = []
        self.down = False
        self.answer: str | None = None

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        path = "/computeMetadata/v1/instance/service-accounts/default/identity"
        async with http_server(Starlette(routes=[Route(path, self._identity)]), "127.0.0.1", 0) as port:
            yield f"127.0.0.1:{port}"

    async def _identity(self, request: Request) -> Response:
        if self.down or request.headers.get("metadata-flavor") != "Google":
            return PlainTextResponse("no", 403)
        self.asked.append(dict(request.query_params))
        audience = request.query_params["audience"]
        return PlainTextResponse(self.answer or self._issuer.token(aud=audience))
