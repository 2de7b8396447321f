"""Reconcilers as anybody may write them, on a gRPC server that can be stopped hard and started again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dispatcher import ServiceCallback, service_callback
from tests.support.dispatching import memory
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceServicer, add_WorkqueueServiceServicer_to_server

__all__ = ["Health", "Process", "Reconciler", "Server", "aborting", "done", "queued_keys", "reconciler"]

Process = Callable[[pb.ProcessRequest, Any], Awaitable[pb.ProcessResponse]]


class Reconciler(WorkqueueServiceServicer):
    """A reconciler as anybody may write one, in any language."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.requests: list[pb.ProcessRequest] = []
        self.streams_refused = 0
        self.batches_refused = 0

    async def Process(self, request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:  # noqa: N802
        self.requests.append(request)
        return await self.process(request, context)

    async def GetKeyState(self, request: pb.GetKeyStateRequest, context: Any) -> pb.KeyState:  # noqa: N802
        raise NotImplementedError

    async def ProcessMany(self, requests: Any, context: Any) -> AsyncIterator[pb.ProcessManyResponse]:  # noqa: N802
        self.streams_refused += 1
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method ProcessMany")  # as Go does
        yield pb.ProcessManyResponse()

    async def QueueMany(self, batch: pb.QueueManyRequest, context: Any) -> pb.QueueManyResponse:  # noqa: N802
        self.batches_refused += 1
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method QueueMany")
        raise AssertionError


class Health(health_pb2_grpc.HealthServicer):
    """The health of a reconciler behind a proxy that answers for it."""

    is_serving = False

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802
        statuses = health_pb2.HealthCheckResponse
        return statuses(status=statuses.SERVING if self.is_serving else statuses.NOT_SERVING)


class Server:
    """A gRPC server that can be stopped hard and started again on its port."""

    def __init__(self, reconciler: Reconciler, health: Health | None) -> None:
        self.reconciler = reconciler
        self.health = health
        self.port = 0

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_WorkqueueServiceServicer_to_server(self.reconciler, self._server)
        if self.health is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)


@asynccontextmanager
async def reconciler(process: Process, health: Health | None = None) -> AsyncIterator[tuple[Server, ServiceCallback]]:
    server = Server(Reconciler(process), health)
    await server.start()
    try:
        async with service_callback(f"grpc://127.0.0.1:{server.port}") as callback:
            yield server, callback
    finally:
        await server.stop()


async def done(request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:
    return pb.ProcessResponse()


def aborting(code: grpc.StatusCode, text: str = "no") -> Process:
    async def process(request: pb.ProcessRequest, context: Any) -> pb.ProcessResponse:
        await context.abort(code, text)
        raise AssertionError

    return process


async def queued_keys(*keys: str) -> MemoryQueue:
    queue = memory()
    for key in keys:
        await queue.queue(key)
    return queue
