"""What a stranger may cost an HTTP server: bytes, seconds, connections, requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from workqueue.access.files import open_files_allowed

__all__ = ["PROBES", "Crowd", "HttpLimits"]

PROBES = ("/healthz", "/readyz")
"""The paths that are answered whatever else goes on."""

_KIB = 1024
_MOST_CONNECTIONS = 512
_BUSY = PlainTextResponse("too many requests are under way\n", 503, {"retry-after": "1"})


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one client, and all of them together, may ask of a server.

    Args:
        head_bytes: request line and headers; more is answered with 431, before anything of it is parsed or checked.
        head_time: from the connection, or from the first byte of a later request, to the end of its headers.
        body_bytes: what follows the headers, chunked or not; more is answered with 413.
        body_time: from the end of the headers to the end of the body.
        idle_time: a connection is closed when it has been without a request for this long.
        stall_time: a client is cut off when it has left an answer unread for this long.
        connections: open at once; 0 = an eighth of the files that the process may open, at most 512. When they are all
            taken, the oldest one without a request makes way for the newest.
    """

    head_bytes: int = 16 * _KIB
    head_time: timedelta = timedelta(seconds=5)
    body_bytes: int = 1024 * _KIB
    body_time: timedelta = timedelta(seconds=20)
    idle_time: timedelta = timedelta(seconds=5)
    stall_time: timedelta = timedelta(seconds=20)
    connections: int = 0

    @property
    def most_connections(self) -> int:
        """How many connections may be open."""
        return self.connections or max(min(open_files_allowed() // 8, _MOST_CONNECTIONS), 8)

    @property
    def most_requests(self) -> int:
        """How many requests may be under way; the other half of the connections is room for probes."""
        return max(self.most_connections // 2, 1)


class Crowd:
    """ASGI middleware: answers 503 to a request beyond `most` that are under way; probes always pass."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            return await self._app(scope, receive, send)
        if self._under_way >= self._most:
            return await _BUSY(scope, receive, send)
        self._under_way += 1
        try:
            return await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
