"""One HTTP connection of a stranger: uvicorn's, with limits to how much comes in, and how slowly."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from workqueue.web.http_limits import HttpLimits
from workqueue.web.room import Room

__all__ = ["Connection"]

# uvicorn warns of every request that makes no sense. Strangers decide how often that is.
_quiet = logging.getLogger(f"{__name__}.uvicorn")
_quiet.setLevel(logging.ERROR)

_LENGTH = re.compile(rb"\d{1,18}")


class _Part(Enum):
    """What the next bytes belong to."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"  # the request is complete, or refused


class Connection(HttpToolsProtocol):
    """Counts and times what comes in before it is parsed; whoever overdoes it is answered once and cut off.

    Args:
        limits: what is too much.
        room: who is connected.
        uvicorn: what uvicorn's own protocol takes.
    """

    def __init__(self, limits: HttpLimits, room: Room, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.logger = _quiet
        self._limits = limits
        self._room = room
        self._part = _Part.HEAD
        self._raw_bytes = 0  # of this part
        self._body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is under way, so that this connection need not make way for another."""
        return self.cycle is not None and not self.cycle.response_complete

    def close(self) -> None:
        """Send what is still to be sent, then end it."""
        self.transport.close()

    def abort(self) -> None:
        """End it at once."""
        self.transport.abort()

    # What comes in

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _send_at_once(transport)
        self._expect(self._limits.head_time.total_seconds(), self._head_is_late)
        self._room.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.leave(self)
        self._unset_keepalive_if_required()
        for timer in (self._timer, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        while data and not self.transport.is_closing():
            taken = self._limits.head_bytes - self._raw_bytes if self._part is _Part.HEAD else len(data)
            self._raw_bytes += min(taken, len(data))
            if self._part is _Part.HEAD and self._timer is None:
                self._expect(self._limits.head_time.total_seconds(), self._head_is_late)
            super().data_received(data[:taken])
            data = data[taken:]
            self._check()

    def _check(self) -> None:
        if self._part is _Part.HEAD and self._raw_bytes >= self._limits.head_bytes:
            self._refuse(431, f"more than {self._limits.head_bytes} bytes of headers")
        elif self._body_bytes > self._limits.body_bytes:
            self._refuse(413, f"more than {self._limits.body_bytes} bytes of body")
        # Chunk sizes, their extensions and trailers are not part of the body, but may be as endless.
        elif self._part is _Part.BODY and self._raw_bytes > 2 * self._limits.body_bytes + self._limits.head_bytes:
            self._refuse(413, "a body that is mostly wrapping")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = _Part.HEAD

    def on_headers_complete(self) -> None:
        self._part, self._raw_bytes, self._body_bytes = _Part.BODY, 0, 0
        self._expect(self._limits.body_time.total_seconds(), self._body_is_late)
        if self._announced() > self._limits.body_bytes:
            self._refuse(413, f"more than {self._limits.body_bytes} bytes of body")
        else:
            super().on_headers_complete()

    def _announced(self) -> int:
        lengths = [value for name, value in self.headers if name == b"content-length"]
        return int(lengths[0]) if lengths and _LENGTH.fullmatch(lengths[0]) else 0

    def on_body(self, body: bytes) -> None:
        if self._part is _Part.BODY:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._part is _Part.BODY:
            self._part, self._raw_bytes = _Part.HEAD, 0
            self._expect_nothing()
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: whoever asks for a WebSocket is no news."""

    # What takes too long

    def _expect(self, seconds: float, late: Callable[[], None]) -> None:
        self._expect_nothing()
        self._timer = self.loop.call_later(seconds, late)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        if self._raw_bytes:
            self._refuse(408, "the headers took too long")
        else:
            self.transport.close()

    def _body_is_late(self) -> None:
        if self.flow.read_paused:  # the app has not asked for more
            self._expect(self._limits.body_time.total_seconds(), self._body_is_late)
        else:
            self._refuse(408, "the body took too long")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self._limits.stall_time.total_seconds(), self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _refuse(self, status: int, why: str) -> None:
        """Answer, unless an answer has begun already, and hang up."""
        self._part = _Part.NOTHING
        self._expect_nothing()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = f"{why}\n".encode()
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()


def _send_at_once(transport: asyncio.Transport) -> None:
    """Hold no small packet back. Head and body of an answer are two, and the second would wait 40 ms for the client.

    asyncio sees to it for sockets that name their protocol; those that listen for us leave it to the system.
    """
    connected = transport.get_extra_info("socket")
    if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
