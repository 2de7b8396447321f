"""Bearer tokens of HTTP requests: checked before the app behind sees anything."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from workqueue.access.security import ServerSecurity
from workqueue.access.tokens import (
    TokenCheckUnavailableError,
    TokenRefusedError,
    TokenVerifier,
    bearer_token,
)
from workqueue.errors import WorkQueueError

__all__ = ["BearerTokens", "guarded"]

_AUTHORIZATION = b"authorization"


class BearerTokens:
    """ASGI middleware: answers 401, or 503 where tokens cannot be checked, unless a valid token comes with a request.

    Args:
        app: what is behind it.
        verifier: decides.
        open_paths: paths that need no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        verifier: TokenVerifier,
        open_paths: Collection[str] = ("/healthz", "/readyz"),
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _path_within(scope) in self._open_paths:
            return await self._app(scope, receive, send)
        shown = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name.lower() == _AUTHORIZATION]
        try:
            await self._verifier.verify(bearer_token(shown))
        except TokenRefusedError as error:
            return await _refuse(scope, send, 401, error)
        except TokenCheckUnavailableError as error:
            return await _refuse(scope, send, 503, error)
        return await self._app(scope, receive, send)


def _path_within(scope: Scope) -> str:
    """The path that the app sees: without the one that it is mounted at, if any."""
    path, mounted_at = str(scope.get("path", "")), str(scope.get("root_path", ""))
    return path[len(mounted_at) :] if path.startswith(mounted_at + "/") else path


async def _refuse(scope: Scope, send: Send, status: int, error: WorkQueueError) -> None:
    if scope["type"] != "http":  # a websocket that was not accepted yet
        return await send({"type": "websocket.close", "code": 1008, "reason": str(error)})
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    return await send({"type": "http.response.body", "body": f"{error}\n".encode()})


def guarded(app: ASGIApp, security: ServerSecurity) -> ASGIApp:
    """`app`, behind a token check where `security` asks for one; probes never need a token."""
    return app if security.tokens is None else BearerTokens(app, security.tokens)
