"""One call of a target: the stored request goes out, the beginning of the answer comes back."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from ssl import SSLContext
from typing import TYPE_CHECKING, Self

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
)
from multidict import CIMultiDict
from yarl import URL

from dispatcher.outage import TargetUnavailableError
from dispatcher.relay.answer import Answer
from dispatcher.relay.request import RelayedRequest
from dispatcher.relay.resolver import GuardedResolver, LookUp, addresses_of
from dispatcher.relay.target import AllowedTargets, Target
from workqueue.safe_text import cut, describe

if TYPE_CHECKING:
    from workqueue.access.security import ClientSecurity

__all__ = ["Sender"]

_CONNECT_SECONDS = 10.0
_ADDRESSES_SECONDS = 10
_SHOWN_BYTES = 4096
_DRAINED_BYTES = 64 * 1024
_ADDED_BY_CLIENT = ("accept", "accept-encoding", "content-type", "user-agent")


class Sender:
    """Calls targets. An async context manager, which owns the connections.

    Args:
        allowed: what may be connected to.
        security: whom to trust, and what certificate to show; renewed files are noticed. It has no token.
        look_up: finds the addresses of a name; may block.
    """

    def __init__(
        self, allowed: AllowedTargets, security: ClientSecurity | None = None, look_up: LookUp = addresses_of
    ) -> None:
        self._allowed = allowed
        self._look_up = look_up
        self._contexts = security.contexts() if security is not None else None
        self._session: ClientSession

    async def __aenter__(self) -> Self:
        connector = TCPConnector(  # the lanes limit how many calls there are
            limit=0, resolver=GuardedResolver(self._allowed, self._look_up), ttl_dns_cache=_ADDRESSES_SECONDS
        )
        self._session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_ADDED_BY_CLIENT,
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def send(self, request: RelayedRequest, idempotency_key: str) -> Answer:
        """Send `request`, with `idempotency_key` where its caller sent none.

        Raises:
            TargetUnavailableError: there is no connection, it broke, or the answer took too long.
        """
        refusal = self._allowed.why_refused(request.target)
        if refusal:  # the list may have changed since the request was stored
            raise TargetUnavailableError(refusal)
        try:
            async with self._session.request(
                request.method,
                _url(request.target, request.path),
                headers=_headers(request, idempotency_key),
                data=request.body or None,
                allow_redirects=False,
                timeout=_timeout(request.timeout),
                ssl=self._tls(request),
            ) as response:
                return await _answer(response)
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            raise TargetUnavailableError(f"{request.target}: {describe(error)}") from error
        except TimeoutError as error:
            raise TargetUnavailableError(f"{request.target}: no answer within {request.timeout}", "broken") from error
        except (ClientError, OSError) as error:
            raise TargetUnavailableError(f"{request.target}: {describe(error)}", "broken") from error

    def _tls(self, request: RelayedRequest) -> SSLContext | bool:
        """How a connection of this request is secured. One that is kept open is used only with the same context."""
        if self._contexts is None or request.target.scheme != "https":
            return True
        return self._contexts.current()


@lru_cache(maxsize=256)  # making one takes longer than all else before the call
def _url(target: Target, path_and_query: str) -> URL:
    path, _, query = path_and_query.partition("?")
    return URL.build(
        scheme=target.scheme, host=target.host, port=target.port, path=path, query_string=query, encoded=True
    )


def _headers(request: RelayedRequest, idempotency_key: str) -> CIMultiDict[str]:
    headers = CIMultiDict(request.headers)
    if "idempotency-key" not in headers:
        headers.add("idempotency-key", idempotency_key)
    if not request.body and request.method not in ("GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"):
        headers.add("content-length", "0")
    return headers


@lru_cache(maxsize=64)
def _timeout(timeout: timedelta) -> ClientTimeout:
    seconds = timeout.total_seconds()
    return ClientTimeout(total=seconds, connect=min(seconds, _CONNECT_SECONDS), ceil_threshold=3600)


async def _answer(response: ClientResponse) -> Answer:
    """The status and the beginning of the body; an endless one is not read to its end, which it has not."""
    delivered = 200 <= response.status < 300
    body = await _beginning(response, _DRAINED_BYTES if delivered else _SHOWN_BYTES)
    text = "" if delivered else cut(body.decode("utf-8", "replace").strip(), _SHOWN_BYTES)
    return Answer(response.status, text, response.headers.get("retry-after", ""))


async def _beginning(response: ClientResponse, most: int) -> bytes:
    body, content = bytearray(), response.content
    with suppress(ClientError, OSError):  # TimeoutError is one: the status is known, and counts however the body ends
        while len(body) < most and not content.at_eof() and (part := await content.read(most - len(body))):
            body += part
    if not content.at_eof():
        response.close()
    return bytes(body)
