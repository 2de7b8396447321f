"""What an error is on the gRPC wire, in both directions (pure): the status it is sent as, the error a status becomes.

| who fails | sends | the caller | makes of it |
|---|---|---|---|
| a reconciler | `of_attempt` | a dispatcher | `non_retriable`, `from_reconciler` |
| a receiver | `of_enqueue` | a producer | `error_of` |
| a shard | `of_shard` | a producer, through the hyperqueue | `error_of` |

An error is final when its status carries NoRetryDetails, whatever its code: Go sends UNKNOWN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from workqueue.errors import (
    InfrastructureError,
    InvalidKeyError,
    InvalidOptionsError,
    KeyNotFoundError,
    NonRetriableError,
    QueueClosedError,
    StoreError,
    StoreUnavailableError,
    StoreUnusableError,
    UnsupportedError,
    WorkQueueError,
)
from workqueue.raised import reason_of
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.safe_text import cut, describe, said

__all__ = [
    "DETAILS_TRAILER",
    "MAX_TEXT_BYTES",
    "Refusal",
    "Trailer",
    "error_of",
    "from_reconciler",
    "non_retriable",
    "of_attempt",
    "of_enqueue",
    "of_shard",
]

DETAILS_TRAILER = "grpc-status-details-bin"
"""The trailer that carries `google.rpc.Status`, by convention of every gRPC implementation."""

MAX_TEXT_BYTES = 1024
"""How much of an error's text is sent: a peer may allow 8 KiB of trailers in all, and the text is in them twice."""

Trailer = tuple[str, str | bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status that an error is sent as."""

    code: grpc.StatusCode
    text: str
    trailers: tuple[Trailer, ...] = ()


# Sent


def of_attempt(error: BaseException) -> Refusal:
    """What a reconciler sends for a callback that raised `error`.

    An UNAVAILABLE of ours carries ErrorInfo, by which `from_reconciler` knows it from a connection that failed.
    """
    match error:
        case NonRetriableError():
            reason = pb.NoRetryDetails(message=_cut(reason_of(error)))
            return _detailed(grpc.StatusCode.UNKNOWN, said(error), reason)
        case InfrastructureError():
            info = ErrorInfo(reason="INFRASTRUCTURE", domain=pb.DESCRIPTOR.package)
            return _detailed(grpc.StatusCode.UNAVAILABLE, said(error), info)
        case grpc.aio.AioRpcError() if error.code() is grpc.StatusCode.UNAVAILABLE:
            return of_attempt(InfrastructureError(describe(error)))
        case _:
            return Refusal(grpc.StatusCode.UNKNOWN, _cut(describe(error)))


def _detailed(code: grpc.StatusCode, text: str, detail: Message) -> Refusal:
    packed = Any()
    packed.Pack(detail)
    short = _cut(text)
    status = Status(code=code.value[0], message=short, details=[packed])
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


def error_of(receiver: str, error: grpc.aio.AioRpcError) -> WorkQueueError:
    """What a producer raises for the status that `receiver` answered with."""
    code, text = error.code(), error.details() or ""
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


def non_retriable(error: grpc.aio.AioRpcError) -> NonRetriableError | None:
    """The final error that a reconciler answered with; None where it is not final.

    The presence of NoRetryDetails counts, not their text. A status that cannot be read is as good as none: trying again
    is safe.
    """
    for name, value in _trailers(error):
        if name == DETAILS_TRAILER and isinstance(value, bytes):
            reason = _reason_in(value)
            return None if reason is None else NonRetriableError(reason, error.details() or "")
    return None


def _reason_in(encoded_status: bytes) -> str | None:
    details = pb.NoRetryDetails()
    with contextlib.suppress(DecodeError):
        for packed in Status.FromString(encoded_status).details:
            if packed.Unpack(details):
                return details.message
    return None


def from_reconciler(error: grpc.aio.AioRpcError) -> bool:
    """Whether a failed call was surely answered by a reconciler, rather than by the connection to it failing."""
    return any(name == DETAILS_TRAILER for name, _ in _trailers(error))


def _trailers(error: grpc.aio.AioRpcError) -> Iterable[Trailer]:
    return cast("Iterable[Trailer]", error.trailing_metadata() or ())
