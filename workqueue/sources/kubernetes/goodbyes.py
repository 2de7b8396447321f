"""Stage 1: TLS connections that aiohttp has closed, and that still wait for the server's goodbye.

A request that is cancelled takes its connection with it. asyncio then waits up to 30 seconds for the server's part of
TLS's goodbye; aiohttp has forgotten the connection by then, so the end of the session does not end it. It would be left
to the garbage collector as an unclosed socket, when the event loop ends sooner.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import BaseConnector
    from aiohttp.connector import Connection

__all__ = ["Goodbyes"]


class Goodbyes:
    """Notes every TLS connection that `connector` hands out, to break off what is left of them.

    Args:
        connector: kubernetes-asyncio makes it, so that its method is replaced rather than its class.
    """

    def __init__(self, connector: BaseConnector) -> None:
        self._connect = connector.connect
        self._open: list[asyncio.Transport] = []
        connector.connect = self._connected  # type: ignore[method-assign]

    async def break_off(self) -> None:
        """Break off what still waits; for after the session is closed."""
        for transport in self._open:
            transport.abort()
        self._open.clear()
        await asyncio.sleep(0)  # a transport lets its socket go in the next turn of the loop

    async def _connected(self, *args: Any, **named: Any) -> Connection:
        connection = await self._connect(*args, **named)
        self._open = [each for each in self._open if _is_open(each)]
        transport = connection.transport
        if transport is not None and _is_open(transport) and transport not in self._open:
            self._open.append(transport)
        return connection


def _is_open(transport: asyncio.Transport) -> bool:
    """Whether this is TLS over a connection that there still is: the outer transport does not say so itself."""
    is_tls = transport.get_extra_info("sslcontext") is not None
    return is_tls and transport.get_extra_info("peername") is not None
