"""The bytes of one connection: what is sent goes out at once, replies are handed over as they arrive.

redis-py connects, over TLS if need be, and logs in; then this takes its transport over. Reading a stream takes a task,
and each of its steps a turn of the event loop: for a lone key that was half of the time from enqueue to start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hiredis import Reader
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, NoPermissionError, NoScriptError, ResponseError

__all__ = ["Reply", "Wire"]

Reply = Any
"""What hiredis makes of a reply: int, bytes, None, a list of these, or a ResponseError."""

_INCOMPLETE = object()
_ERRORS: dict[str, type[ResponseError]] = {"NOPERM": NoPermissionError, "NOSCRIPT": NoScriptError}


class Wire(asyncio.Protocol):
    """One connection, logged in.

    Args:
        connection: connected, with no command under way; it is of no use afterwards.
        take: receives each reply, in order.
        lost: called, once and not after `close`, with why no more replies will come.
    """

    def __init__(
        self, connection: AbstractConnection, take: Callable[[Reply], None], lost: Callable[[Exception], None]
    ) -> None:
        writer, connection._writer, connection._reader = connection._writer, None, None
        if writer is None:
            raise ConnectionError("the connection was closed while logging in")
        self._replies = Reader(protocolError=InvalidResponse, replyError=_error, notEnoughData=_INCOMPLETE)
        self._take = take
        self._lost = lost
        self._is_closed = False
        self._writer = writer  # it would close its transport if it were collected
        writer.transport.set_protocol(self)

    def write(self, data: bytes) -> None:
        """Send `data` as soon as the socket takes it."""
        self._writer.transport.write(data)

    def close(self) -> None:
        """Close the connection at once."""
        self._is_closed = True
        self._writer.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand over the replies that are complete now (called by the event loop)."""
        self._replies.feed(data)
        while (reply := self._replies.gets()) is not _INCOMPLETE:
            self._take(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on (called by the event loop)."""
        if not self._is_closed:
            self._is_closed = True
            self._lost(exc or ConnectionError("the server closed the connection"))


def _error(text: str) -> ResponseError:
    return _ERRORS.get(text.partition(" ")[0], ResponseError)(text)
