"""Stages 3-7: an HTTP server beside other work in one event loop. Signals stay the program's: its drain comes first."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from workqueue.errors import InvalidSettingError

__all__ = ["serving"]

_GRACE_SECONDS = 5


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGTERM alone: uvicorn would stop at once and never tell the dispatcher to drain."""
        yield


@asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve `app` until the block ends, then give running requests a few seconds.

    Args:
        app: any ASGI app; lifespan events are not sent.
        host: a name or an address, IPv6 included.
        port: 0 = any free one.
        tls: serve HTTPS with it.

    Yields:
        The port. Connections are accepted from the first moment of the block.

    Raises:
        InvalidSettingError: the address cannot be listened on.
    """
    listener = _listen(host, port)
    server = _Server(_config(app, tls))
    task = asyncio.create_task(server.serve([listener]), name=f"http-server-{listener.getsockname()[1]}")
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.shield(task)


def _config(app: ASGIApp, tls: ssl.SSLContext | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_context_factory=None if tls is None else lambda *_: tls,
    )
    config.load()
    return config


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InvalidSettingError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
