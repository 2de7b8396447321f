"""An HTTP server beside other work in one event loop. Signals stay the program's: its drain comes first.

uvicorn parses and answers, with httptools. What it takes without end by itself (heads, bodies, silence, answers that
nobody reads) is limited in `connection`, `room` and `limits`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from workqueue.access.addresses import listening_sockets
from workqueue.access.security import ServerTLS
from workqueue.web.connection import Connection
from workqueue.web.http_limits import Crowd, HttpLimits
from workqueue.web.room import Room
from workqueue.web.tls import Handshake

__all__ = ["http_server"]

_GRACE_SECONDS = 5.0
_LIMITS = HttpLimits()


@asynccontextmanager
async def http_server(
    app: ASGIApp, host: str, port: int, *, tls: ServerTLS | None = None, limits: HttpLimits = _LIMITS
) -> AsyncIterator[int]:
    """Serve `app` until the block ends, then give running requests a few seconds.

    Args:
        app: any ASGI app; lifespan events are not sent.
        host: a name or an address; every address of a name, and IPv4 and IPv6 for everywhere.
        port: 0 = any free one.
        tls: serve HTTPS with it, and follow its files.
        limits: what clients may cost.

    Yields:
        The port. Connections are accepted from the first moment of the block.

    Raises:
        InvalidSettingError: the address cannot be listened on.
    """
    sockets = listening_sockets(host, port)
    bound = int(sockets[0].getsockname()[1])
    server = _Server(_quiet(Crowd(app, limits.most_requests)), tls, limits)
    serving = asyncio.create_task(server.serve(sockets), name=f"http-server-{bound}")
    try:
        yield bound
    finally:
        server.should_exit = True
        await asyncio.shield(serving)
        # A server that was ended before it began, or as it did, has closed nothing: uvloop would wait for it for ever.
        for begun in server.servers:
            begun.close()
        for each in sockets:
            each.close()


def _quiet(app: ASGIApp) -> ASGIApp:
    """`app`, for which a client that hangs up in the middle of its request is no error."""

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await app(scope, receive, send)

    return quiet


class _Server(uvicorn.Server):
    """uvicorn, whose connections are ours."""

    def __init__(self, app: ASGIApp, tls: ServerTLS | None, limits: HttpLimits) -> None:
        super().__init__(_config(app, limits))
        self._contexts = tls.contexts() if tls is not None else None
        self._limits = limits
        self._room = Room(limits.most_connections)
        self.servers: list[asyncio.Server] = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would stop at once, and the dispatcher would not drain."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(self._greet, sock=each) for each in sockets or ()]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way, for a few seconds; whoever has asked for nothing is not waited for."""
        for server in self.servers:
            server.close()
        self._room.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._room.emptied()
                if self.server_state.tasks:
                    await asyncio.wait(self.server_state.tasks)
        for task in list(self.server_state.tasks):
            task.cancel()
        self._room.clear()

    def _greet(self) -> asyncio.Protocol:
        if self._contexts is None:
            return self._connection()
        return Handshake(self._contexts, self._limits.head_time.total_seconds(), self._room, self._connection)

    def _connection(self) -> Connection:
        return Connection(self._limits, self._room, config=self.config, server_state=self.server_state, app_state={})


def _config(app: ASGIApp, limits: HttpLimits) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.idle_time.total_seconds()),
    )
    config.load()
    return config
