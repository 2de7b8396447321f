"""One open watch of the fake Kubernetes API server: the changes that its selection sees, bookmarks, and faults."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aiohttp import web

from tests.fakes.kubernetes.faults import Asked, Fault
from tests.fakes.kubernetes.selectors import matches
from tests.fakes.kubernetes.store import Body, Change, Resource, Stored, gone, status

if TYPE_CHECKING:
    from tests.fakes.kubernetes.server import KubernetesServer


class Stream:
    """One open watch."""

    def __init__(
        self,
        server: KubernetesServer,
        request: web.BaseRequest,
        response: web.StreamResponse,
        asked: Asked,
        fault: Fault | None,
    ) -> None:
        self._server = server
        self._request = request
        self._response = response
        self._asked = asked
        self._fault = fault
        self._sent = 0
        self._bookmarks = server.bookmarks

    async def run(self, resource: Resource, since: int, changed: asyncio.Event, ended: asyncio.Event) -> None:
        while not ended.is_set():
            changed.clear()
            if since < self._server.store.compacted:  # what this watch has not sent yet is forgotten
                await self._response.write(event_line("ERROR", gone("The watch fell behind").status))
                return
            for change in tuple(self._server.store.since(since)):
                since = change.revision
                line = self._event(change) if change.resource is resource else b""
                if line and not await self._send(line):
                    return
            if self._bookmarks < self._server.bookmarks:
                self._bookmarks = self._server.bookmarks
                await self._bookmark(resource)
            if self._fault is not None and self._fault.error:
                await self._response.write(event_line("ERROR", status(self._fault.error, "InternalError", "injected")))
                return
            await changed.wait()

    async def _bookmark(self, resource: Resource) -> None:
        if self._asked.query.get("allowWatchBookmarks") == "true":
            metadata = {"resourceVersion": str(self._server.store.revision), "creationTimestamp": None}
            body = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
            await self._response.write(event_line("BOOKMARK", body))

    async def _send(self, line: bytes) -> bool:
        """Write an event; False if the watch is to end here."""
        fault = self._fault
        if fault is not None and fault.garbage:
            await self._response.write(fault.garbage + b"\n")
            return False
        if fault is not None and fault.cut is not None and self._sent >= fault.cut:
            await self._response.write(line[: len(line) // 2])
            hang_up(self._request)
            return False
        await self._response.write(line)
        self._sent += 1
        return True

    def _event(self, change: Change) -> bytes:
        """A change as this watch sees it: what leaves its selection is deleted, what enters it is added."""
        query = self._asked.query
        if self._asked.namespace not in ("", change.last.metadata.get("namespace", "")):
            return b""

        def selected(stored: Stored | None) -> bool:
            return stored is not None and matches(
                stored, query.get("labelSelector", ""), query.get("fieldSelector", "")
            )

        before, after = selected(change.before), selected(change.after)
        if not (before or after):
            return b""
        kind = b"MODIFIED" if before and after else b"ADDED" if after else b"DELETED"
        return b'{"type":"' + kind + b'","object":' + change.last.raw + b"}\n"


def event_line(kind: str, body: Body) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def hang_up(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
