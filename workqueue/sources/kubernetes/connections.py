"""Stage 1: the connections to one API server, which follow the files of its authority and of the client's certificate.

A cluster whose authority is replaced writes the new one into every pod's service account. kubernetes-asyncio reads it
once, so every connection that is made later would be refused until the process is restarted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from workqueue.access.files import Followed
from workqueue.sources.kubernetes.goodbyes import Goodbyes

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient
    from kubernetes_asyncio.client.rest import RESTClientObject

__all__ = ["Connections"]


class Connections:
    """Pools of connections: one that trusts what the files say now, and older ones whose requests are still under way.

    Args:
        client: the first pool is its own; the others are configured as it is.
    """

    def __init__(self, client: ApiClient) -> None:
        self._configuration = client.configuration
        self._first: RESTClientObject | None = client.rest_client
        files = (client.configuration.ssl_ca_cert, client.configuration.cert_file, client.configuration.key_file)
        paths = [Path(file) for file in files if file]
        self._goodbyes: dict[RESTClientObject, Goodbyes] = {}
        self._followed = Followed(paths, self._made, "certificates for the Kubernetes API server")
        self._current = self._followed.current()
        self._under_way: Counter[RESTClientObject] = Counter()

    @asynccontextmanager
    async def current(self) -> AsyncIterator[RESTClientObject]:
        """The pool for a request; it is not closed before the block is left."""
        before, self._current = self._current, self._followed.current()
        await self._close_idle(before)
        pool = self._current
        self._under_way[pool] += 1
        try:
            yield pool
        finally:
            self._under_way[pool] -= 1
            await self._close_idle(pool)

    async def close(self) -> None:
        """Close every pool; requests under way break off."""
        for pool in {self._current, *self._under_way}:
            await self._close(pool)

    async def _close_idle(self, pool: RESTClientObject) -> None:
        """Close a pool that is not for new requests any more, and has no other under way."""
        if pool is not self._current and not self._under_way[pool]:
            del self._under_way[pool]
            await self._close(pool)

    async def _close(self, pool: RESTClientObject) -> None:
        await pool.close()
        if goodbyes := self._goodbyes.pop(pool, None):
            await goodbyes.break_off()

    def _made(self) -> RESTClientObject:
        from kubernetes_asyncio.client.rest import RESTClientObject  # lazily, as in `api`

        first, self._first = self._first, None
        made = first or RESTClientObject(self._configuration)
        if (connector := made.pool_manager.connector) is not None:
            self._goodbyes[made] = Goodbyes(connector)
        return made
