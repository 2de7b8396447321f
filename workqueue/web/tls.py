"""HTTPS: the handshake of a new connection, which counts as one from its first moment and may not take for ever."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from workqueue.access.files import Followed
from workqueue.web.connection import Connection
from workqueue.web.room import Room

__all__ = ["Handshake"]

_SHUTDOWN_SECONDS = 2.0


class Handshake(asyncio.Protocol):
    """A connection that is not encrypted yet; hands itself over to a `Connection` once it is.

    Args:
        contexts: followed, so that a renewed certificate is used from the next connection on.
        seconds: how long the handshake may take.
        room: who is connected.
        connection: makes what is handed over to.
    """

    busy = False

    def __init__(
        self,
        contexts: Followed[ssl.SSLContext],
        seconds: float,
        room: Room,
        connection: Callable[[], Connection],
    ) -> None:
        self._contexts = contexts
        self._seconds = seconds
        self._room = room
        self._connection = connection
        self._early: list[bytes] = []
        self._shaking: asyncio.Task[None] | None = None
        self._lost = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._shaking is not None:
            return
        self._transport = cast(asyncio.Transport, transport)
        self._transport.pause_reading()
        self._room.enter(self)
        self._shaking = asyncio.get_running_loop().create_task(self._shake_hands())

    def data_received(self, data: bytes) -> None:
        self._early.append(data)  # before TLS was there, or with the end of the handshake, before we knew of that

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._room.leave(self)
        if self._shaking is not None:  # whether it waits for a handshake that will not come, or has just had it
            self._shaking.cancel()

    def close(self) -> None:
        """End it at once: there is nothing to be sent yet."""
        self.abort()

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    async def _shake_hands(self) -> None:
        loop = asyncio.get_running_loop()
        encrypting = asyncio.ensure_future(
            loop.start_tls(
                self._transport,
                self,
                self._contexts.current(),
                server_side=True,
                ssl_handshake_timeout=self._seconds,
                ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
            )
        )
        try:
            await asyncio.sleep(0)  # its protocol is in our place then, and greets the transport in the next turn
            loop.call_soon(self._pass_on)
            encrypted = await encrypting
        except (OSError, RuntimeError):  # no TLS, no certificate of ours, no patience, gone: as common as scanners
            self._transport.abort()
            self._room.leave(self)
            return
        finally:
            encrypting.cancel()
        self._room.leave(self)
        if encrypted is not None and not self._lost:  # a connection that begins with its end would stay for ever
            self._hand_over(encrypted)

    def _pass_on(self) -> None:
        """Give TLS what came before it was there: uvloop begins to read whatever `connection_made` says."""
        early, self._early = b"".join(self._early), []
        protocol = cast(asyncio.BufferedProtocol, self._transport.get_protocol())
        while early and not self._transport.is_closing():
            buffer = memoryview(protocol.get_buffer(len(early)))
            size = min(len(buffer), len(early))
            buffer[:size] = early[:size]
            protocol.buffer_updated(size)
            early = early[size:]

    def _hand_over(self, encrypted: asyncio.Transport) -> None:
        connection = self._connection()
        encrypted.set_protocol(connection)
        connection.connection_made(encrypted)
        for data in self._early:
            connection.data_received(data)
