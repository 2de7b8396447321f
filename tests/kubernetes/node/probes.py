"""Probes as a kubelet makes them: HTTP, gRPC health and TCP, from the machine to the Pod's address."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.kubernetes.node.api import Object

__all__ = ["Prober", "probe"]


async def probe(asked: Object, container: Object, address: str) -> bool:
    """Whether the container at `address` answers the probe."""
    try:
        async with asyncio.timeout(asked.get("timeoutSeconds", 1)):
            if http := asked.get("httpGet"):
                return await _http(http, container, address)
            if call := asked.get("grpc"):
                return await _grpc(call, address)
            _, writer = await asyncio.open_connection(address, _port(asked["tcpSocket"]["port"], container))
            writer.close()
            return True
    except (OSError, TimeoutError, aiohttp.ClientError, grpc.RpcError):
        return False


async def _http(asked: Object, container: Object, address: str) -> bool:
    scheme = asked.get("scheme", "HTTP").lower()
    url = f"{scheme}://{address}:{_port(asked['port'], container)}{asked.get('path', '/')}"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=False, allow_redirects=False) as answer:
        return 200 <= answer.status < 400


async def _grpc(asked: Object, address: str) -> bool:
    async with grpc.aio.insecure_channel(f"{address}:{asked['port']}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=asked.get("service", "")))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _port(port: int | str, container: Object) -> int:
    if isinstance(port, int):
        return port
    return next(int(it["containerPort"]) for it in container.get("ports", ()) if it.get("name") == port)


class Prober:
    """Follows one container: `started`, then `ready` and alive, by its probes' periods and thresholds.

    Args:
        container: with its probes.
        address: the Pod's.
        changed: awaited when `started` or `ready` has changed.
        dead: awaited when the startup or liveness probe has failed for good.
    """

    def __init__(
        self,
        container: Object,
        address: str,
        changed: Callable[[], Awaitable[None]],
        dead: Callable[[], Awaitable[None]],
    ) -> None:
        self.started = "startupProbe" not in container
        self.ready = self.started and "readinessProbe" not in container
        self._container = container
        self._address = address
        self._changed = changed
        self._dead = dead

    async def run(self) -> None:
        """Probe until it is cancelled or the container is found dead."""
        if not self.started:
            if not await self._passes("startupProbe"):
                await self._dead()
                return
            self.started = True
        self.ready = "readinessProbe" not in self._container
        await self._changed()
        async with asyncio.TaskGroup() as tasks:
            if "livenessProbe" in self._container:
                tasks.create_task(self._live())
            if "readinessProbe" in self._container:
                tasks.create_task(self._follow())

    async def _passes(self, name: str) -> bool:
        """Whether a probe succeeds before it has failed `failureThreshold` times."""
        asked = self._container[name]
        for _ in range(asked.get("failureThreshold", 3)):
            if await probe(asked, self._container, self._address):
                return True
            await asyncio.sleep(asked.get("periodSeconds", 10))
        return False

    async def _live(self) -> None:
        period = self._container["livenessProbe"].get("periodSeconds", 10)
        alive = True
        while alive:
            await asyncio.sleep(period)
            alive = await self._passes("livenessProbe")
        await self._dead()

    async def _follow(self) -> None:
        asked, failures = self._container["readinessProbe"], 0
        while True:
            failures = 0 if await probe(asked, self._container, self._address) else failures + 1
            ready = failures == 0 or (self.ready and failures < asked.get("failureThreshold", 3))
            if ready != self.ready:
                self.ready = ready
                await self._changed()
            await asyncio.sleep(asked.get("periodSeconds", 10) if self.ready else 0.5)
