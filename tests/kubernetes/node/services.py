"""Services: names by a hosts file, and a proxy in this process on each cluster address, as kube-proxy once was."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import defaultdict
from pathlib import Path

from tests.kubernetes.node.api import Api, Object
from tests.kubernetes.node.network import add_address

__all__ = ["Services"]


class Services:
    """Follows Services and EndpointSlices; new connections go to the endpoints that are ready, in turn."""

    def __init__(self, api: Api, hosts: Path) -> None:
        self.hosts = hosts
        self._api = api
        self._services: dict[tuple[str, str], Object] = {}
        self._endpoints: defaultdict[tuple[str, str], dict[str, Object]] = defaultdict(dict)
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._turn = itertools.count()
        self._connections: set[asyncio.Task[None]] = set()  # asyncio itself holds them weakly: one was collected once
        self._write_hosts()

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_services())
                tasks.create_task(self._follow_endpoints())
        finally:
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _follow_services(self) -> None:
        async for event, service in self._api.watch("/api/v1/services"):
            metadata, address = service["metadata"], service["spec"].get("clusterIP", "None")
            name = (metadata["namespace"], metadata["name"])
            if event == "DELETED":
                self._services.pop(name, None)
                await self._close(address)
            elif address != "None" and name != ("default", "kubernetes"):
                self._services[name] = service
                for port in service["spec"]["ports"]:
                    await self._listen(name, address, port)
            self._write_hosts()

    async def _follow_endpoints(self) -> None:
        async for event, piece in self._api.watch("/apis/discovery.k8s.io/v1/endpointslices"):
            metadata = piece["metadata"]
            pieces = self._endpoints[metadata["namespace"], metadata["labels"].get("kubernetes.io/service-name", "")]
            if event == "DELETED":
                pieces.pop(metadata["name"], None)
            else:
                pieces[metadata["name"]] = piece

    def _ready(self, name: tuple[str, str], port: Object) -> list[tuple[str, int]]:
        found = []
        for piece in self._endpoints[name].values():
            ports = [it["port"] for it in piece.get("ports") or () if (it.get("name") or "") == port.get("name", "")]
            for endpoint in piece.get("endpoints") or ():
                if endpoint["conditions"].get("ready"):
                    found += [(address, number) for address in endpoint["addresses"] for number in ports]
        return found

    async def _listen(self, name: tuple[str, str], address: str, port: Object) -> None:
        place = (address, port["port"])
        if place in self._servers:
            return
        add_address(address)

        async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            endpoints = self._ready(name, port)
            with contextlib.closing(writer), contextlib.suppress(OSError, IndexError):
                to_reader, to_writer = await asyncio.open_connection(
                    *endpoints[next(self._turn) % max(len(endpoints), 1)]
                )
                with contextlib.closing(to_writer):
                    await both(pumped(reader, to_writer), pumped(to_reader, writer))

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.create_task(passed_on(reader, writer))
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)

        self._servers[place] = await asyncio.start_server(connected, *place)

    async def _close(self, address: str) -> None:
        for place in [it for it in self._servers if it[0] == address]:
            self._servers.pop(place).close()

    def _write_hosts(self) -> None:
        lines = ["127.0.0.1 localhost"]
        for (namespace, name), service in self._services.items():
            full = f"{name}.{namespace}.svc"
            lines.append(f"{service['spec']['clusterIP']} {full} {full}.cluster.local {name}.{namespace} {name}")
        text = "\n".join(lines) + "\n"
        (self.hosts / "new").write_text(text, encoding="utf-8")
        (self.hosts / "new").rename(self.hosts / "hosts")


async def both(*flows: object) -> None:
    """Wait for both directions of a connection; when one breaks, so does the other."""
    async with asyncio.TaskGroup() as tasks:
        for flow in flows:
            tasks.create_task(flow)  # type: ignore[arg-type]


async def pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
