"""Stage 1: the receiver: a queue served over gRPC, for producers in Python and Go."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import grpc

from workqueue.access.security import ServerSecurity
from workqueue.clock import Clock
from workqueue.equipment import Equipment
from workqueue.errors import InvalidSettingError, StoreUnavailableError, WorkQueueError
from workqueue.interface import WorkQueue
from workqueue.optional import BulkQueue, offers
from workqueue.options import MAX_META_BYTES
from workqueue.readiness import Readiness, of_store
from workqueue.rpc.batches import too_large
from workqueue.rpc.grpc_limits import receiver_limits
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceServicer
from workqueue.rpc.served_stream import Answer, ServedStreams, TimeLeft, answered
from workqueue.rpc.server import GrpcServer, Listen
from workqueue.rpc.statuses import Refusal, of_enqueue
from workqueue.rpc.wire import options_of, state_message_of

__all__ = ["Receiver", "receive", "take_over_trace"]

log = logging.getLogger(__name__)

_STORED, _ALL_STORED = pb.ProcessResponse(), pb.QueueManyResponse()
_ONE_BY_ONE = Refusal(grpc.StatusCode.UNIMPLEMENTED, "this queue takes keys one by one")
_TRACE = "traceparent"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context, version 00
_TRACE_BYTES = len(_TRACE) + 55

_PATIENCE_SECONDS = 30.0
_IN_TIME = 0.9  # of the time that the caller has left

_T = TypeVar("_T")

_Context = grpc.aio.ServicerContext[Any, Any]


def receive(
    queue: WorkQueue,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    security: ServerSecurity | None = None,
    drains: Callable[[], bool] = lambda: False,
) -> GrpcServer:
    """A server that puts what it is sent into `queue`; enter it, then `wait()`.

    Args:
        queue: entered already, and left after the server.
        host: where to listen; another address than loopback needs TLS or `security.insecure`.
        port: 0 for any free one, found in the server's `port` once it is entered.
        security: TLS and tokens.
        drains: whether the process around it drains; calls are answered then, and health checks turn callers away.

    Raises:
        InvalidSettingError: host, port and security do not go together, or `queue` is none.
        InvalidOptionsError: an argument is of another type.
    """
    if not offers(queue, WorkQueue):
        raise InvalidSettingError(
            f"a receiver takes a queue, as open_queue(url) gives it, not a {type(queue).__name__}"
        )
    limits = receiver_limits(Equipment.of(queue).max_payload)
    listen = Listen(host, port, ServerSecurity() if security is None else security, limits)
    return GrpcServer(Receiver(queue), listen, why_unready=partial(_why_unready, of_store(queue), drains))


async def _why_unready(store: Readiness, drains: Callable[[], bool]) -> str:
    return "draining" if drains() else await store.why_unready()


class Receiver(WorkqueueServiceServicer):
    """The servicer, for `add_WorkqueueServiceServicer_to_server` on any grpc.aio server.

    Concurrent calls become concurrent enqueues, which a backend stores in batches.

    Args:
        queue: where keys go; an answer means that the queue has stored the key.
        clock: what delays count from; default the queue's own, else the machine's.
    """

    def __init__(self, queue: WorkQueue, clock: Clock | None = None) -> None:
        self._queue = queue
        self._bulk = queue if offers(queue, BulkQueue) else None
        self._clock: Clock = clock or Equipment.of(queue).clock
        self._streams = ServedStreams(self._store)

    async def Process(self, request: pb.ProcessRequest, context: _Context) -> pb.ProcessResponse:  # noqa: N802
        """Enqueue the request's key."""
        take_over_trace(request, context)
        return await answered(await self._store(request, context.time_remaining), context)

    def ProcessMany(  # noqa: N802
        self, requests: AsyncIterator[pb.ProcessManyRequest], context: _Context
    ) -> AsyncIterator[pb.ProcessManyResponse]:
        """Enqueue the key of each request."""
        return self._streams.serve(requests, context)

    async def QueueMany(self, batch: pb.QueueManyRequest, context: _Context) -> pb.QueueManyResponse:  # noqa: N802
        """Enqueue the keys of all requests, as one `queue_many`."""
        return await answered(await self._store_all(batch, context.time_remaining), context)

    async def GetKeyState(self, request: pb.GetKeyStateRequest, context: _Context) -> pb.KeyState:  # noqa: N802
        """Where the request's key is."""
        try:
            async with _in_time(context.time_remaining):
                return state_message_of(await self._queue.get(request.key))
        except Exception as error:  # noqa: BLE001 - every error is answered with a status of its own
            refusal = _refusal(error)
            await context.abort(refusal.code, refusal.text)

    async def _store(self, request: pb.ProcessRequest, time_left: TimeLeft) -> Answer:
        def enqueue() -> Awaitable[None]:
            return self._queue.queue(request.key, options_of(request, self._clock.wall_us()))

        return await _stored(enqueue, time_left, _STORED)

    async def _store_all(self, batch: pb.QueueManyRequest, time_left: TimeLeft) -> pb.QueueManyResponse | Refusal:
        bulk = self._bulk
        if bulk is None:
            return _ONE_BY_ONE
        if (refusal := too_large(batch)) is not None:
            return refusal

        def enqueue() -> Awaitable[None]:
            now_us = self._clock.wall_us()
            return bulk.queue_many([(each.key, options_of(each, now_us)) for each in batch.requests])

        return await _stored(enqueue, time_left, _ALL_STORED)


async def _stored(enqueue: Callable[[], Awaitable[None]], time_left: TimeLeft, answer: _T) -> _T | Refusal:
    """`answer` once the queue has stored what it is given; else why it has not."""
    try:
        async with _in_time(time_left):
            await enqueue()
    except Exception as error:  # noqa: BLE001 - every error is answered with a status of its own
        return _refusal(error)
    return answer


@asynccontextmanager
async def _in_time(time_left: TimeLeft) -> AsyncIterator[None]:
    """End what takes so long that its caller would have given up, while the caller still learns why."""
    left = time_left()
    seconds = _PATIENCE_SECONDS if left is None else max(left, 0.0) * _IN_TIME
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise StoreUnavailableError(f"the store has not answered for {seconds:.1f} s") from error


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, WorkQueueError):
        return of_enqueue(error)
    log.error("a bug, or a backend that raises untyped errors", exc_info=error)
    return Refusal(grpc.StatusCode.INTERNAL, "the receiver failed unexpectedly; its log says how")


def take_over_trace(request: pb.ProcessRequest, context: _Context) -> None:
    """Keep the caller's trace with the key: instrumented Go producers send it as a header, not in `meta`.

    What is malformed, or would make `meta` too large, is left out: a header must not get an enqueue refused.
    """
    for name, value in context.invocation_metadata() or ():
        if name == _TRACE and _TRACE not in request.meta and _TRACEPARENT.fullmatch(str(value)):
            used = sum(len(key) + len(text.encode()) for key, text in request.meta.items())
            if used + _TRACE_BYTES <= MAX_META_BYTES:
                request.meta[_TRACE] = str(value)
