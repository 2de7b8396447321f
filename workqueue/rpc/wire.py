"""Stages 1, 5, 6: what options, outcomes and errors are on the gRPC wire, in both directions (pure).

Facts shared with Go peers: a delay is whole seconds, more than zero or none; a requeue beats keys to queue; an error is
final when its status carries NoRetryDetails, whatever its code (Go sends UNKNOWN).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from workqueue.clock import from_us
from workqueue.errors import (
    InfrastructureError,
    InvalidKeyError,
    InvalidOptionsError,
    KeyNotFoundError,
    NonRetriableError,
    QueueClosedError,
    StoreUnavailableError,
    StoreUnusableError,
    UnsupportedError,
    WorkQueueError,
)
from workqueue.interface import KeyState, KeyStatus
from workqueue.options import NO_META, Options
from workqueue.outcomes import Outcome, QueueKey, QueueKeys, RequeueAfter, RequeueNotBefore
from workqueue.rpc.pb import workqueue_pb2 as pb

__all__ = [
    "DETAILS_TRAILER",
    "MAX_DELAY_SECONDS",
    "MAX_STATUS_BYTES",
    "SERVICE",
    "Failure",
    "Trailer",
    "cut",
    "describe",
    "failure_of",
    "from_reconciler",
    "key_state_of",
    "non_retriable_reason",
    "options_of",
    "outcome_of",
    "refusal_of",
    "refuse_floor",
    "request_of",
    "response_of",
    "state_message_of",
    "whole_seconds",
]

SERVICE: str = pb.DESCRIPTOR.services_by_name["WorkqueueService"].full_name

DETAILS_TRAILER = "grpc-status-details-bin"
"""The trailer that carries `google.rpc.Status`, by convention of every gRPC implementation."""

MAX_STATUS_BYTES = 1024
"""How much of an error's text travels: trailers are small (8 KiB in all), and text is in them twice."""

MAX_DELAY_SECONDS = 10_000_000_000
"""Three hundred years. An int64 of seconds can say more than a `datetime` can hold; this much means "never"."""

_SECOND = timedelta(seconds=1)

Trailer = tuple[str, str | bytes]


@dataclass(frozen=True, slots=True)
class Failure:
    """The status that an error becomes."""

    code: grpc.StatusCode
    text: str
    trailers: tuple[Trailer, ...] = ()


# Delays and options


def whole_seconds(delay: timedelta) -> int:
    """A delay as the wire has it: whole seconds, rounded up, at least 1; 0 for a delay that is not positive."""
    return min(-(-delay // _SECOND), MAX_DELAY_SECONDS) if delay > timedelta(0) else 0


def request_of(key: str, options: Options, now_us: int) -> pb.ProcessRequest:
    """An enqueue as a request.

    Raises:
        UnsupportedError: it has a floor, which a request cannot carry; losing it silently would break a promise.
    """
    refuse_floor(options)
    delay = 0 if options.not_before is None else whole_seconds(options.not_before - from_us(now_us))
    return pb.ProcessRequest(
        key=key, priority=options.priority, delay_seconds=delay, payload=options.payload or b"", meta=options.meta
    )


def refuse_floor(options: Options) -> Options:
    """`options`, unless they ask for a floor.

    Raises:
        UnsupportedError: they do.
    """
    if options.not_before_floor:
        raise UnsupportedError("a floor cannot be asked for over gRPC; enqueue next to the store, or without a floor")
    return options


def options_of(request: pb.ProcessRequest, now_us: int) -> Options:
    """The enqueue that a request asks for.

    Raises:
        InvalidOptionsError: an option is out of range.
    """
    return Options(
        priority=request.priority,
        not_before=_moment(request.delay_seconds, now_us),
        payload=request.payload or None,
        meta=dict(request.meta) if request.meta else NO_META,
    )


def _moment(delay_seconds: int, now_us: int) -> datetime | None:
    if delay_seconds <= 0:
        return None
    return from_us(now_us) + timedelta(seconds=min(delay_seconds, MAX_DELAY_SECONDS))


# Outcomes


def response_of(outcome: object) -> pb.ProcessResponse:
    """What a callback returned or raised on purpose, as a response.

    Raises:
        TypeError: it is no outcome.
    """
    match outcome:
        case None:
            return pb.ProcessResponse()
        case RequeueAfter():
            seconds = max(whole_seconds(outcome.next_delay()), 1)
            return pb.ProcessResponse(requeue_after_seconds=seconds, requeue_floor=outcome.floor)
        case QueueKeys():
            return pb.ProcessResponse(queue_keys=map(_queue_key_message, outcome.keys))
        case _:
            raise TypeError(f"a callback returns None, RequeueAfter, RequeueNotBefore or QueueKeys, not {outcome!r}")


def _queue_key_message(child: QueueKey) -> pb.QueueKeyRequest:
    delay = whole_seconds(child.delay) if child.delay is not None else 0
    return pb.QueueKeyRequest(key=child.key, priority=child.priority, delay_seconds=delay, payload=child.payload or b"")


def outcome_of(response: pb.ProcessResponse) -> Outcome | None:
    """What a reconciler's response asks for.

    Raises:
        InvalidKeyError, InvalidOptionsError: it asks for a key that cannot be queued; the attempt has failed.
    """
    seconds = min(response.requeue_after_seconds, MAX_DELAY_SECONDS)
    if seconds > 0:
        kind = RequeueNotBefore if response.requeue_floor else RequeueAfter
        return kind(timedelta(seconds=seconds))
    return QueueKeys(*map(_queue_key, response.queue_keys)) if response.queue_keys else None


def _queue_key(child: pb.QueueKeyRequest) -> QueueKey:
    seconds = min(child.delay_seconds, MAX_DELAY_SECONDS)
    delay = timedelta(seconds=seconds) if seconds > 0 else None
    return QueueKey(child.key, child.priority, delay, child.payload or None)


# Key states


def state_message_of(state: KeyState) -> pb.KeyState:
    """A key's state as an answer; times in Unix seconds, not-before rounded up, 0 for none."""
    return pb.KeyState(
        key=state.key,
        status=pb.KeyState.Status.ValueType(state.status),
        priority=state.priority,
        attempts=min(state.attempts, 2**31 - 1),
        queued_time=int(state.queued_time.timestamp()) if state.queued_time else 0,
        not_before_time=math.ceil(state.not_before.timestamp()) if state.not_before else 0,
    )


def key_state_of(message: pb.KeyState) -> KeyState:
    """An answer as a key's state; any time <= 0 is none, since a Go receiver sends its zero time for none."""
    return KeyState(
        message.key,
        _status(message.status),
        message.priority,
        message.attempts,
        _unix(message.queued_time),
        _unix(message.not_before_time),
    )


def _status(number: int) -> KeyStatus:
    try:
        return KeyStatus(number)
    except ValueError:  # a newer peer's
        return KeyStatus.UNKNOWN


def _unix(seconds: int) -> datetime | None:
    return from_us(min(seconds, MAX_DELAY_SECONDS) * 1_000_000) if seconds > 0 else None


# Errors


def cut(text: str, limit: int = MAX_STATUS_BYTES) -> str:
    """`text` in at most `limit` bytes of UTF-8; where something was left out it ends in an ellipsis."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "…"


def failure_of(error: BaseException) -> Failure:
    """The status with which a reconciler answers for a callback that raised `error`.

    An UNAVAILABLE of ours carries ErrorInfo, by which `from_reconciler` tells it from a connection that failed.
    """
    match error:
        case NonRetriableError():
            return _detailed(grpc.StatusCode.UNKNOWN, str(error), pb.NoRetryDetails(message=cut(error.reason)))
        case InfrastructureError():
            info = ErrorInfo(reason="INFRASTRUCTURE", domain=pb.DESCRIPTOR.package)
            return _detailed(grpc.StatusCode.UNAVAILABLE, str(error), info)
        case grpc.aio.AioRpcError() if error.code() is grpc.StatusCode.UNAVAILABLE:
            return failure_of(InfrastructureError(describe(error)))
        case _:
            return Failure(grpc.StatusCode.UNKNOWN, cut(describe(error)))


def describe(error: BaseException) -> str:
    """One line on `error`: its class and text; of a failed call its status, whose text alone is many lines."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"


def _detailed(code: grpc.StatusCode, text: str, detail: Message) -> Failure:
    packed = Any()
    packed.Pack(detail)
    short = cut(text)
    status = Status(code=code.value[0], message=short, details=[packed])
    return Failure(code, short, ((DETAILS_TRAILER, status.SerializeToString()),))


_REFUSALS: tuple[tuple[type[WorkQueueError], grpc.StatusCode], ...] = (
    (InvalidKeyError, grpc.StatusCode.INVALID_ARGUMENT),
    (InvalidOptionsError, grpc.StatusCode.INVALID_ARGUMENT),
    (KeyNotFoundError, grpc.StatusCode.NOT_FOUND),
    (StoreUnavailableError, grpc.StatusCode.UNAVAILABLE),
    (QueueClosedError, grpc.StatusCode.UNAVAILABLE),
    (StoreUnusableError, grpc.StatusCode.FAILED_PRECONDITION),
    (UnsupportedError, grpc.StatusCode.UNIMPLEMENTED),
)


def refusal_of(error: WorkQueueError) -> Failure:
    """The status with which a receiver answers for a queue that raised `error`."""
    for kind, code in _REFUSALS:
        if isinstance(error, kind):
            return Failure(code, cut(str(error)))
    return Failure(grpc.StatusCode.INTERNAL, cut(str(error)))


def non_retriable_reason(trailers: Iterable[Trailer] | None) -> str | None:
    """The reason in NoRetryDetails, '' if it gives none; None where there are no such details, so that it may succeed.

    Their presence counts, not their text. A status that cannot be read is as good as none: trying again is safe.
    """
    for name, value in trailers or ():
        if name == DETAILS_TRAILER and isinstance(value, bytes):
            return _reason_in(value)
    return None


def _reason_in(encoded_status: bytes) -> str | None:
    details = pb.NoRetryDetails()
    with contextlib.suppress(DecodeError):
        for packed in Status.FromString(encoded_status).details:
            if packed.Unpack(details):
                return details.message
    return None


def from_reconciler(trailers: Iterable[Trailer] | None) -> bool:
    """Whether a failed call was surely answered by a reconciler, rather than by the connection to it failing."""
    return any(name == DETAILS_TRAILER for name, _ in trailers or ())
