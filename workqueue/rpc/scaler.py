"""Stage 1: how many dispatchers a queue can use, for KEDA: an external scaler over gRPC.

A queue's size is its eligible keys and those in progress, since a pod that is busy must not be scaled away for having
emptied the queue; no more than the stored limit, beyond which further pods would find nothing to start.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc

from workqueue.access.security import ServerSecurity
from workqueue.clock import Clock, SystemClock, duration_us
from workqueue.errors import InvalidSettingError, StoreError
from workqueue.fallbacks import FullQueue
from workqueue.optional import Counts
from workqueue.readiness import any_of, of_store
from workqueue.rpc.pb import externalscaler_pb2 as pb
from workqueue.rpc.pb.externalscaler_pb2_grpc import ExternalScalerServicer, add_ExternalScalerServicer_to_server
from workqueue.rpc.server import GrpcServer, Listen, Service
from workqueue.throttle import Configuration

__all__ = ["KEYS_PER_REPLICA", "Scaler", "scale", "size_of"]

KEYS_PER_REPLICA = 10.0
"""How many keys one replica is for, unless the trigger's metadata say otherwise: a dispatcher's default concurrency."""

_FRESH = timedelta(seconds=1)

_Context = grpc.aio.ServicerContext[Any, Any]


def size_of(counts: Counts, configuration: Configuration) -> int:
    """How many keys dispatchers can have in hand now: what they have, and what they may still start."""
    eligible = 0 if configuration.paused else counts.queued
    return max(configuration.limit(counts.in_progress + eligible), 0)


def scale(
    queues: Mapping[str, FullQueue],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    security: ServerSecurity | None = None,
    clock: Clock | None = None,
) -> GrpcServer:
    """A server that answers KEDA with the sizes of `queues`; enter it, then `wait()`.

    Args:
        queues: by the name that the metadata of a trigger give in `queue`; with one queue they need not.
        host: where to listen; another address than loopback needs TLS or `security.insecure`.
        port: 0 for any free one, found in the server's `port` once it is entered.
        security: TLS and tokens.
        clock: where time comes from.

    Raises:
        InvalidSettingError: host, port and security do not go together, or there is no queue.
    """
    if not queues:
        raise InvalidSettingError("a scaler needs a queue to count")
    service = Service("externalscaler.ExternalScaler", add_ExternalScalerServicer_to_server)
    servicer = Scaler(queues, clock or SystemClock())
    listen = Listen(host, port, security or ServerSecurity())
    return GrpcServer(
        servicer, listen, service=service, why_unready=any_of([of_store(each) for each in queues.values()])
    )


class _Sized:
    """A queue whose size is asked for at most once a second, by however many."""

    def __init__(self, queue: FullQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._lock = asyncio.Lock()
        self._size = 0
        self._stale_us = 0

    async def size(self) -> int:
        async with self._lock:
            now_us = self._clock.steady_us()
            if now_us >= self._stale_us:
                self._size = size_of(await self._queue.counts(), await self._queue.configuration())
                self._stale_us = now_us + duration_us(_FRESH)
            return self._size


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the metadata of a trigger ask for."""

    name: str
    keys_per_replica: float

    @property
    def metric(self) -> str:
        return f"workqueue-{self.name}"


class Scaler(ExternalScalerServicer):
    """The servicer (see `scale`)."""

    def __init__(self, queues: Mapping[str, FullQueue], clock: Clock) -> None:
        self._queues = {name: _Sized(queue, clock) for name, queue in queues.items()}
        self._clock = clock

    async def IsActive(self, request: pb.ScaledObjectRef, context: _Context) -> pb.IsActiveResponse:  # noqa: N802
        """Whether there is anything to do."""
        return pb.IsActiveResponse(result=await self._size(request, context) > 0)

    async def StreamIsActive(  # noqa: N802
        self, request: pb.ScaledObjectRef, context: _Context
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """Whether there is anything to do, now and at each change, which is noticed within a second."""
        before = None
        while True:
            active = await self._size(request, context) > 0
            if active != before:
                before = active
                yield pb.IsActiveResponse(result=active)
            await self._clock.sleep(_FRESH.total_seconds())

    async def GetMetricSpec(  # noqa: N802
        self, request: pb.ScaledObjectRef, context: _Context
    ) -> pb.GetMetricSpecResponse:
        """The one metric of a queue, and how many keys a replica is for."""
        wanted = await self._wanted(request, context)
        size = wanted.keys_per_replica
        return pb.GetMetricSpecResponse(
            metricSpecs=[pb.MetricSpec(metricName=wanted.metric, targetSize=math.ceil(size), targetSizeFloat=size)]
        )

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: _Context) -> pb.GetMetricsResponse:  # noqa: N802
        """The size of a queue."""
        wanted = await self._wanted(request.scaledObjectRef, context)
        size = await self._size(request.scaledObjectRef, context)
        return pb.GetMetricsResponse(
            metricValues=[pb.MetricValue(metricName=wanted.metric, metricValue=size, metricValueFloat=size)]
        )

    async def _size(self, request: pb.ScaledObjectRef, context: _Context) -> int:
        wanted = await self._wanted(request, context)
        try:
            return await self._queues[wanted.name].size()
        except StoreError as error:  # KEDA has a fallback for a scaler without an answer
            return await context.abort(grpc.StatusCode.UNAVAILABLE, f"queue {wanted.name}: {error}")

    async def _wanted(self, request: pb.ScaledObjectRef, context: _Context) -> _Wanted:
        try:
            return _read(request.scalerMetadata, list(self._queues))
        except InvalidSettingError as error:
            return await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def _read(metadata: Mapping[str, str], known: list[str]) -> _Wanted:
    name = metadata.get("queue") or (known[0] if len(known) == 1 else "")
    if name not in known:
        raise InvalidSettingError(f"the trigger's metadata has queue {name!r}; it takes one of {', '.join(known)}")
    text = metadata.get("keysPerReplica", "")
    try:
        keys_per_replica = float(text) if text else KEYS_PER_REPLICA
    except ValueError:
        keys_per_replica = 0.0
    if not 0 < keys_per_replica < math.inf:
        raise InvalidSettingError(f"the trigger's metadata has keysPerReplica {text!r}; it takes a number above zero")
    return _Wanted(name, keys_per_replica)
