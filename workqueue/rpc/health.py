"""The standard gRPC health service: the empty name means that the server is alive, our service's that it is ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthServicer

__all__ = ["Health"]

_pb: Any = health_pb2  # its stubs lack what List needs
_Status = health_pb2.HealthCheckResponse
_LOOK_SECONDS = 5.0

_Context = grpc.aio.ServicerContext[Any, Any]


class Health(HealthServicer):
    """Answers probes and balancers.

    Args:
        service: the full name of the service whose health is the server's readiness.
        why_unready: why calls are not welcome, '' if they are.
    """

    def __init__(self, service: str, why_unready: Callable[[], Awaitable[str]]) -> None:
        self._service = service
        self._why_unready = why_unready
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Let those who watch look again, now and not within five seconds."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: _Context) -> health_pb2.HealthCheckResponse:  # noqa: N802
        status = await self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service is here")
        return _Status(status=status)

    async def List(self, request: object, context: _Context) -> Any:  # noqa: N802
        statuses = {name: _Status(status=await self._status(name)) for name in ("", self._service)}
        return _pb.HealthListResponse(statuses=statuses)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        last: int | None = None
        while True:
            changed, status = self._changed, await self._status(request.service)
            if status != last:
                last = status
                yield _Status(status=status)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await changed.wait()

    async def _status(self, service: str) -> Any:
        if service == "":
            return _Status.SERVING
        if service != self._service:
            return _Status.SERVICE_UNKNOWN
        return _Status.NOT_SERVING if await self._why_unready() else _Status.SERVING
