"""What an error is on the gRPC wire, in both directions (pure): the status it is sent as, the error a status becomes.

| who fails | sends | the caller | makes of it |
|---|---|---|---|
| a reconciler | `of_attempt` | a dispatcher | `marked`, `from_reconciler` |
| a receiver | `of_enqueue` | a producer | `error_of` |
| a shard | `of_shard` | a producer, through the hyperqueue | `error_of` |

An error is final when its status carries NoRetryDetails, whatever its code: Go sends UNKNOWN. What Go has no word for
travels beside it: RetryInfo, and ErrorInfo of our domain.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from workqueue.errors import (
    ExpiredError,
    InfrastructureError,
    InvalidKeyError,
    InvalidOptionsError,
    KeyNotFoundError,
    NonRetriableError,
    PayloadTooLargeError,
    QueueClosedError,
    RetryAfterError,
    StoreError,
    StoreUnavailableError,
    StoreUnusableError,
    TargetUnavailableError,
    Trouble,
    UnsupportedError,
    WorkQueueError,
)
from workqueue.options import MAX_PAYLOAD_BYTES
from workqueue.raised import reason_of, retry_delay_of
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.wire import MAX_DELAY_SECONDS
from workqueue.safe_text import cut, describe, said

__all__ = [
    "DETAILS_TRAILER",
    "MAX_TEXT_BYTES",
    "Refusal",
    "Trailer",
    "error_in",
    "error_of",
    "failed",
    "from_reconciler",
    "marked",
    "of_attempt",
    "of_enqueue",
    "of_shard",
    "status_of",
]

DETAILS_TRAILER = "grpc-status-details-bin"
"""The trailer that carries `google.rpc.Status`, by convention of every gRPC implementation."""

MAX_TEXT_BYTES = 1024
"""How much of an error's text is sent: a peer may allow 8 KiB of trailers in all, and the text is in them twice."""

_CODE_OF: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

Trailer = tuple[str, str | bytes]

# What our own ErrorInfo says, which peers in Go pass over.
_DOMAIN: str = pb.DESCRIPTOR.package
_EXPIRED, _INFRASTRUCTURE, _TARGET = "EXPIRED", "INFRASTRUCTURE", "TARGET_UNAVAILABLE"
_LONGEST_DELAY = timedelta(seconds=MAX_DELAY_SECONDS)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status that an error is sent as."""

    code: grpc.StatusCode
    text: str
    trailers: tuple[Trailer, ...] = ()


# Sent


def of_attempt(error: BaseException) -> Refusal:
    """What a reconciler sends for a callback that raised `error`.

    An UNAVAILABLE of ours carries ErrorInfo, by which `from_reconciler` knows it from a connection that failed. What
    `marked` makes of the status has the same effect as `error` has in process.
    """
    match error:
        case NonRetriableError():
            reason = pb.NoRetryDetails(message=_cut(reason_of(error)))
            expired = [_mark(_EXPIRED)] if isinstance(error, ExpiredError) else []
            return _detailed(grpc.StatusCode.UNKNOWN, said(error), reason, *expired)
        case TargetUnavailableError():
            return _detailed(grpc.StatusCode.UNAVAILABLE, said(error), _mark(_TARGET, trouble=str(error.trouble)))
        case InfrastructureError():
            return _detailed(grpc.StatusCode.UNAVAILABLE, said(error), _mark(_INFRASTRUCTURE))
        case RetryAfterError() if (delay := retry_delay_of(error)) is not None:
            info = RetryInfo()
            info.retry_delay.FromTimedelta(min(delay, _LONGEST_DELAY))
            return _detailed(grpc.StatusCode.UNKNOWN, said(error), info)
        case grpc.aio.AioRpcError() if error.code() is grpc.StatusCode.UNAVAILABLE:
            return of_attempt(InfrastructureError(describe(error)))
        case _:
            return Refusal(grpc.StatusCode.UNKNOWN, _cut(describe(error)))


def status_of(refusal: Refusal) -> bytes:
    """A refusal as `google.rpc.Status`, for an answer that has no trailers."""
    for name, value in refusal.trailers:
        if name == DETAILS_TRAILER and isinstance(value, bytes):
            return value
    return Status(code=refusal.code.value[0], message=refusal.text).SerializeToString()


def _mark(reason: str, **metadata: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain=_DOMAIN, metadata=metadata)


def _detailed(code: grpc.StatusCode, text: str, *details: Message) -> Refusal:
    packed = [Any() for _ in details]
    for each, detail in zip(packed, details, strict=True):
        each.Pack(detail)
    short = _cut(text)
    status = Status(code=code.value[0], message=short, details=packed)
    return Refusal(code, short, ((DETAILS_TRAILER, status.SerializeToString()),))


_CODES: tuple[tuple[type[WorkQueueError], grpc.StatusCode], ...] = (
    (InvalidKeyError, grpc.StatusCode.INVALID_ARGUMENT),
    (InvalidOptionsError, grpc.StatusCode.INVALID_ARGUMENT),
    (KeyNotFoundError, grpc.StatusCode.NOT_FOUND),
    (StoreUnavailableError, grpc.StatusCode.UNAVAILABLE),
    (QueueClosedError, grpc.StatusCode.UNAVAILABLE),
    (StoreUnusableError, grpc.StatusCode.FAILED_PRECONDITION),
    (UnsupportedError, grpc.StatusCode.UNIMPLEMENTED),
)


def of_enqueue(error: WorkQueueError) -> Refusal:
    """What a receiver sends for a queue that raised `error`."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Refusal(code, _cut(str(error)))
    return Refusal(grpc.StatusCode.INTERNAL, _cut(str(error)))


_ABOUT_THE_CALL = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND})
_ABOUT_THE_CALLER = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})


def of_shard(shard: str, error: grpc.aio.AioRpcError) -> Refusal:
    """What a hyperqueue sends for a shard that answered with `error`."""
    code, text = error.code(), error.details() or ""
    if code in _ABOUT_THE_CALL:
        return Refusal(code, _cut(text))
    if code in _ABOUT_THE_CALLER:
        code = grpc.StatusCode.FAILED_PRECONDITION  # the shard refuses the hyperqueue, not the producer
    return Refusal(code, _cut(f"shard {shard}: {text}"))


def _cut(text: str) -> str:
    return cut(text, MAX_TEXT_BYTES)


# Received by a producer

# Enqueues may be repeated, so whatever might pass is tried again. Go receivers send INTERNAL when their store fails.
_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
    }
)
_FINAL = {
    grpc.StatusCode.UNAUTHENTICATED: "does not accept this client",
    grpc.StatusCode.PERMISSION_DENIED: "does not accept this client",
    grpc.StatusCode.UNIMPLEMENTED: "is no receiver",
    grpc.StatusCode.FAILED_PRECONDITION: "has a store that does not work",
}


def error_of(receiver: str, error: grpc.aio.AioRpcError, payload_bytes: int = 0) -> WorkQueueError:
    """What a producer raises for the status that `receiver` answered with to a request with this large a payload."""
    code, text = error.code(), error.details() or ""
    # A server's limit of a message has no status of its own. No receiver has one below the usual limit of a payload.
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and payload_bytes > MAX_PAYLOAD_BYTES:
        return PayloadTooLargeError(
            f"{receiver} does not take a payload of {payload_bytes} bytes ({text}): store it elsewhere and enqueue a "
            "reference to it"
        )
    if code in _TRANSIENT:
        return StoreUnavailableError(f"{receiver}: {describe(error)}")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidOptionsError(text)
    if code is grpc.StatusCode.NOT_FOUND:
        return KeyNotFoundError(text)
    if code in _FINAL:
        return StoreUnusableError(f"{receiver} {_FINAL[code]}: {text}")
    return StoreError(f"{receiver}: {describe(error)}")


# Received by a dispatcher


def error_in(status: Status) -> grpc.aio.AioRpcError:
    """What a call of its own would have raised that ended with `status`."""
    trailers = [(DETAILS_TRAILER, status.SerializeToString())] if status.details else []
    return failed(_CODE_OF.get(status.code, grpc.StatusCode.UNKNOWN), status.message, trailers)


def failed(code: grpc.StatusCode, text: str, trailers: Iterable[Trailer] = ()) -> grpc.aio.AioRpcError:
    """What a call of its own would have raised that ended so."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), text, None)


def marked(error: grpc.aio.AioRpcError) -> WorkQueueError | None:
    """The error that a reconciler raised, where its status says more than that the attempt failed; else None.

    The presence of NoRetryDetails counts, not their text. A status that cannot be read is as good as none: trying again
    is safe.
    """
    for name, value in _trailers(error):
        if name == DETAILS_TRAILER and isinstance(value, bytes):
            with contextlib.suppress(DecodeError, ValueError, OverflowError):
                return _marked(Status.FromString(value), error)
    return None


def _marked(status: Status, error: grpc.aio.AioRpcError) -> WorkQueueError | None:
    text, final, mark, retry = error.details() or "", pb.NoRetryDetails(), ErrorInfo(), RetryInfo()
    ours = _unpacked(status, mark) and mark.domain == _DOMAIN
    if _unpacked(status, final):
        kind = ExpiredError if ours and mark.reason == _EXPIRED else NonRetriableError
        return kind(final.message, text)
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return _target_of(mark, text) if ours and mark.reason == _TARGET else None
    if _unpacked(status, retry) and (delay := retry.retry_delay.ToTimedelta()) > timedelta(0):
        return RetryAfterError(delay, text)
    return None


def _unpacked(status: Status, detail: Message) -> bool:
    """Whether `status` has a detail of this type; then `detail` is filled with it."""
    for packed in status.details:
        with contextlib.suppress(DecodeError):
            if packed.Unpack(detail):
                return True
    return False


def _target_of(mark: ErrorInfo, text: str) -> TargetUnavailableError:
    trouble = mark.metadata["trouble"]
    known: dict[str, Trouble] = {"broken": "broken", "refused": "refused"}
    unavailable = TargetUnavailableError(text, known.get(trouble, "unsent"))
    unavailable.behind = True
    return unavailable


def from_reconciler(error: grpc.aio.AioRpcError) -> bool:
    """Whether a failed call was surely answered by a reconciler, rather than by the connection to it failing."""
    return any(name == DETAILS_TRAILER for name, _ in _trailers(error))


def _trailers(error: grpc.aio.AioRpcError) -> Iterable[Trailer]:
    return cast("Iterable[Trailer]", error.trailing_metadata() or ())
