"""A callback served over gRPC, for dispatchers in Python and Go: outcomes and errors become answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import grpc

from workqueue.access.security import ServerSecurity
from workqueue.attempt import Callback, call, check_callback
from workqueue.errors import InfrastructureError, NonRetriableError, PayloadTooLargeError, RetryAfterError
from workqueue.exits import exits_contained
from workqueue.lease import Lost
from workqueue.options import check_duration, check_type
from workqueue.outcomes import QueueKeys, RequeueAfter
from workqueue.raised import as_one
from workqueue.rpc.drain import Drain, DrainTimes
from workqueue.rpc.grpc_limits import RECONCILER_LIMITS
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceServicer
from workqueue.rpc.served_stream import Answer, ServedStreams, TimeLeft, answered
from workqueue.rpc.server import GrpcServer, Listen
from workqueue.rpc.statuses import MAX_TEXT_BYTES, Refusal, of_attempt
from workqueue.rpc.wire import response_of
from workqueue.safe_text import cut, describe

__all__ = ["Reconciler", "RemoteAttempt", "serve"]

log = logging.getLogger(__name__)

_FOR_EVER = timedelta(days=36500)

_FULL = Refusal(grpc.StatusCode.UNAVAILABLE, "too many calls are under way")

_Context = grpc.aio.ServicerContext[Any, Any]


def serve(
    callback: Callback,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    security: ServerSecurity | None = None,
    times: DrainTimes | None = None,
) -> GrpcServer:
    """A server that calls `callback` for every key that a dispatcher sends; enter it, then `wait()`.

    Leaving the block drains: callbacks get three seconds to finish, the keys of the others, and of calls that still
    come in, are requeued after 15 to 45 s without costing an attempt.

    Args:
        callback: the reconciler; the same function works with `dispatcher.handle` in process.
        host: where to listen; another address than loopback needs TLS or `security.insecure`.
        port: 0 for any free one, found in the server's `port` once it is entered.
        security: TLS and tokens.
        times: how the drain goes.

    Raises:
        InvalidSettingError: host, port and security do not go together, or the callback cannot be called with a key and
            its attempt.
        InvalidOptionsError: an argument is of another type.
    """
    check_callback(callback, "key", "attempt")
    listen = Listen(host, port, ServerSecurity() if security is None else security, RECONCILER_LIMITS)
    times = DrainTimes() if times is None else times
    check_type("times", times, DrainTimes, "DrainTimes(patience=...)")
    reconciler = Reconciler(callback, times)
    return GrpcServer(reconciler, listen, drain=reconciler)


class Reconciler(WorkqueueServiceServicer):
    """The servicer; `serve` runs it on a server of its own."""

    def __init__(self, callback: Callback, times: DrainTimes) -> None:
        self._callback = callback
        self._attempts: Drain[Answer] = Drain(times, response_of)
        self._streams = ServedStreams(self._attempt)

    async def Process(self, request: pb.ProcessRequest, context: _Context) -> pb.ProcessResponse:  # noqa: N802
        """Call the callback for the request's key."""
        return await answered(await self._attempt(request, context.time_remaining), context)

    def ProcessMany(  # noqa: N802
        self, requests: AsyncIterator[pb.ProcessManyRequest], context: _Context
    ) -> AsyncIterator[pb.ProcessManyResponse]:
        """Call the callback for the key of each request."""
        return self._streams.serve(requests, context)

    async def GetKeyState(self, request: pb.GetKeyStateRequest, context: _Context) -> pb.KeyState:  # noqa: N802
        """Not here: a reconciler keeps no keys."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this is a reconciler; ask the receiver for a key's state")

    async def QueueMany(self, batch: pb.QueueManyRequest, context: _Context) -> pb.QueueManyResponse:  # noqa: N802
        """Not here: a reconciler keeps no keys."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this is a reconciler; keys go to the receiver")

    async def drain(self) -> None:
        """Let no attempt begin any more, and return once all are answered."""
        self._streams.close()
        await self._attempts.drain()

    def hurry(self) -> None:
        """Answer at once for the attempts that run."""
        self._attempts.hurry()

    async def _attempt(self, request: pb.ProcessRequest, time_left: TimeLeft) -> Answer:
        if len(self._attempts) >= RECONCILER_LIMITS.calls:
            return _FULL
        attempt = RemoteAttempt(request, time_left)
        return await self._attempts.run(self._reconcile(attempt), attempt.lost.set)

    async def _reconcile(self, attempt: RemoteAttempt) -> pb.ProcessResponse | Refusal:
        try:
            with exits_contained():
                return _answer(attempt.key, await call(self._callback, attempt.key, attempt))
        except asyncio.CancelledError as cancelled:
            if attempt.lost.is_set():
                raise
            return of_attempt(cancelled)
        except BaseException as raised:  # noqa: BLE001 - SystemExit ends an attempt, not the server with all the others
            error = as_one(raised)
            if isinstance(error, RequeueAfter | QueueKeys):
                return _answer(attempt.key, error)
            _log(attempt.key, error)
            return of_attempt(error)


def _answer(key: str, outcome: object) -> pb.ProcessResponse | Refusal:
    """What is sent for what a callback returned or raised on purpose."""
    try:
        return response_of(outcome)
    except (TypeError, PayloadTooLargeError) as error:
        _log(key, error)
        return of_attempt(error)


def _log(key: str, error: BaseException) -> None:
    """One line for what a callback meant to say; the traceback too where it did not, for it does not travel."""
    meant = isinstance(error, NonRetriableError | InfrastructureError | RetryAfterError | PayloadTooLargeError)
    text = cut(describe(error), MAX_TEXT_BYTES)
    try:
        log.warning("key %r failed: %s", key, text, extra={"key": key}, exc_info=None if meant else error)
    except RecursionError:  # its traceback is too deep to be shown
        log.warning("key %r failed: %s", key, text, extra={"key": key})


class RemoteAttempt:
    """What a request says of its attempt (see `Attempt`)."""

    __slots__ = ("_request", "_time_left", "lost")

    def __init__(self, request: pb.ProcessRequest, time_left: TimeLeft) -> None:
        self._request = request
        self._time_left = time_left
        self.lost = Lost()

    @property
    def key(self) -> str:
        return self._request.key

    @property
    def priority(self) -> int:
        return self._request.priority

    @property
    def payload(self) -> bytes | None:
        return self._request.payload or None

    @property
    def meta(self) -> Mapping[str, str]:
        return dict(self._request.meta)  # a protobuf map answers '' for a name it has not, and adds it

    @property
    def attempts(self) -> int:
        return self._request.attempts

    @property
    def queued_time(self) -> datetime | None:
        return None

    def extend(self, duration: timedelta) -> None:
        check_duration("a duration", duration)

    def remaining(self) -> timedelta:
        seconds = self._time_left()
        return _FOR_EVER if seconds is None else timedelta(seconds=max(seconds, 0.0))

    @property
    def is_awaited(self) -> bool:
        return False  # whoever called has gone, or stops

    def __repr__(self) -> str:
        return f"RemoteAttempt({self.key!r}, attempts={self.attempts})"
