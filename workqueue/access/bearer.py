"""Stages 1, 3, 5: bearer tokens: checked by servers, before a call or request is looked at, and added by clients."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Protocol

import grpc

from workqueue.clock import Clock, SystemClock
from workqueue.errors import InvalidSettingError, WorkQueueError

__all__ = [
    "AddToken",
    "BearerTokens",
    "RequireToken",
    "StaticToken",
    "StaticTokens",
    "TokenCheckUnavailableError",
    "TokenFile",
    "TokenRefusedError",
    "TokenSource",
    "TokenVerifier",
    "bearer_token",
]

log = logging.getLogger(__name__)

_HEALTH = "/grpc.health.v1.Health/"  # probes have no tokens, and learn nothing that a connection does not tell
_REREAD_US = 30_000_000


class TokenRefusedError(WorkQueueError):
    """The bearer token is missing or not valid."""


class TokenCheckUnavailableError(WorkQueueError):
    """Whether the token is valid cannot be found out at the moment."""


# Servers


class TokenVerifier(Protocol):
    """Decides which bearer tokens a server accepts."""

    async def verify(self, token: str) -> None:
        """Return if `token` is accepted.

        Raises:
            TokenRefusedError: it is not accepted; the message may be told to whoever showed it.
            TokenCheckUnavailableError: it could not be checked.
        """


class StaticTokens:
    """Accepts any of the given tokens; several, so that they can be replaced one after the other.

    Raises:
        InvalidSettingError: there is none, or one is not plain ASCII without spaces.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = tuple(_check_token(token).encode() for token in tokens)
        if not self._tokens:
            raise InvalidSettingError("tokens are asked for, but none is set: nobody could call this server")

    @classmethod
    def from_file(cls, path: Path) -> StaticTokens:
        """The tokens in a file, one a line.

        Raises:
            InvalidSettingError: it cannot be read, or as above.
        """
        return cls(line.strip() for line in _read(path).splitlines() if line.strip())

    async def verify(self, token: str) -> None:
        shown = token.encode(errors="replace")
        # All are compared, each in constant time: how long it takes tells nothing about any of them.
        matches = [hmac.compare_digest(shown, known) for known in self._tokens]
        if not any(matches):
            raise TokenRefusedError("the bearer token is not one of those that this server accepts")


def bearer_token(authorization: str | None) -> str:
    """The token in an `Authorization` header.

    Raises:
        TokenRefusedError: there is no header, or it is of another kind.
    """
    kind, _, token = (authorization or "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise TokenRefusedError("no bearer token: send the header 'authorization: Bearer TOKEN'")
    return token.strip()


class RequireToken(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Answers UNAUTHENTICATED, or UNAVAILABLE where tokens cannot be checked, unless a valid token comes with the call.

    Health checks need none.
    """

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if handler_call_details.method.startswith(_HEALTH):
            return await continuation(handler_call_details)
        headers = {name: str(value) for name, value in handler_call_details.invocation_metadata}
        try:
            await self._verifier.verify(bearer_token(headers.get("authorization")))
        except TokenRefusedError as error:
            return _answer(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except TokenCheckUnavailableError as error:
            return _answer(grpc.StatusCode.UNAVAILABLE, str(error))
        return await continuation(handler_call_details)


def _answer(code: grpc.StatusCode, text: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def abort(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(code, text)

    return grpc.unary_unary_rpc_method_handler(abort)


_Scope = dict[str, Any]
_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[Any], Awaitable[None]]


class BearerTokens:
    """ASGI middleware: answers 401, or 503 where tokens cannot be checked, unless a valid token comes with a request.

    Args:
        app: what is behind it.
        verifier: decides.
        open_paths: paths that need no token.
    """

    def __init__(
        self,
        app: Callable[[_Scope, _Receive, _Send], Awaitable[None]],
        verifier: TokenVerifier,
        open_paths: Collection[str] = ("/healthz", "/readyz"),
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in self._open_paths:
            return await self._app(scope, receive, send)
        headers = {name.lower(): value for name, value in scope.get("headers", ())}
        try:
            await self._verifier.verify(bearer_token(headers.get(b"authorization", b"").decode("latin-1")))
        except TokenRefusedError as error:
            return await _refuse(scope, send, 401, error)
        except TokenCheckUnavailableError as error:
            return await _refuse(scope, send, 503, error)
        return await self._app(scope, receive, send)


async def _refuse(scope: _Scope, send: _Send, status: int, error: WorkQueueError) -> None:
    if scope["type"] != "http":  # a websocket that was not accepted yet
        return await send({"type": "websocket.close", "code": 1008, "reason": str(error)})
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    return await send({"type": "http.response.body", "body": f"{error}\n".encode()})


# Clients


class TokenSource(Protocol):
    """Where a client's bearer token comes from; asked before every call, so it keeps what it found."""

    async def token(self) -> str:
        """The token to send.

        Raises:
            StoreUnavailableError: there is none at the moment.
        """


class StaticToken:
    """Always the same token.

    Raises:
        InvalidSettingError: it is empty, or not plain ASCII without spaces.
    """

    def __init__(self, token: str) -> None:
        self._token = _check_token(token)

    async def token(self) -> str:
        return self._token


class TokenFile:
    """The token in a file that somebody else renews, as Kubernetes does; read again every 30 s.

    Raises:
        InvalidSettingError: the file cannot be read, is empty, or holds no token.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock: Clock = clock or SystemClock()
        self._token = _check_token(_read(path).strip())
        self._read_us = self._clock.steady_us()

    async def token(self) -> str:
        now_us = self._clock.steady_us()
        if now_us - self._read_us >= _REREAD_US:
            self._read_us = now_us
            self._reread()
        return self._token

    def _reread(self) -> None:
        try:
            self._token = _check_token(_read(self._path).strip())
        except InvalidSettingError as error:  # caught half-way through being replaced: the old one may still do
            log.warning("still using the previous token: %s", error)


class AddToken(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Sends the source's token with every call."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], grpc.aio.UnaryUnaryCall[Any, Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: object,
    ) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        metadata.add("authorization", f"Bearer {await self._source.token()}")
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            client_call_details.timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


def _check_token(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidSettingError("a token is plain ASCII without spaces, and not empty")  # never the token itself
    return token


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise InvalidSettingError(f"cannot read the token file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidSettingError(f"the token file {path} is not plain ASCII") from error
