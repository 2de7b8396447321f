"""What options, outcomes and key states are on the gRPC wire, in both directions (pure); errors are in `statuses`.

Facts shared with Go peers: a delay is whole seconds, more than zero or none; a requeue beats keys to queue.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from workqueue.clock import from_us
from workqueue.errors import PayloadTooLargeError, UnsupportedError
from workqueue.interface import KeyState, KeyStatus
from workqueue.options import NO_META, Options
from workqueue.outcomes import Outcome, QueueKey, QueueKeys, RequeueAfter, RequeueNotBefore
from workqueue.rpc.grpc_limits import MAX_MESSAGE_BYTES
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rules import MAX_LAST_ERROR_BYTES
from workqueue.safe_text import cut

__all__ = [
    "MAX_DELAY_SECONDS",
    "SERVICE",
    "batch_of",
    "key_state_of",
    "options_of",
    "outcome_of",
    "refuse_floor",
    "request_of",
    "response_of",
    "state_message_of",
    "whole_seconds",
]

SERVICE: str = pb.DESCRIPTOR.services_by_name["WorkqueueService"].full_name

MAX_DELAY_SECONDS = 10_000_000_000
"""Three hundred years. An int64 of seconds can say more than a `datetime` can hold; this much means "never"."""

_SECOND = timedelta(seconds=1)
_DEFAULT = Options()  # what most requests ask for; made anew, it costs a fifth of what a receiver does for a key


# Delays and options


def whole_seconds(delay: timedelta) -> int:
    """A delay as the wire has it: whole seconds, rounded up, at least 1; 0 for a delay that is not positive."""
    return min(-(-delay // _SECOND), MAX_DELAY_SECONDS) if delay > timedelta(0) else 0


def request_of(key: str, options: Options, now_us: int) -> pb.ProcessRequest:
    """An enqueue as a request.

    Raises:
        UnsupportedError: it has a floor, which a request cannot carry; losing it silently would break a promise.
    """
    request = pb.ProcessRequest(key=key)
    _say(request, options, now_us)
    return request


def batch_of(items: Iterable[tuple[str, Options]], now_us: int) -> pb.QueueManyRequest:
    """Many enqueues as one request.

    Raises:
        UnsupportedError: as `request_of`.
    """
    batch = pb.QueueManyRequest()
    for key, options in items:
        _say(batch.requests.add(key=key), options, now_us)
    return batch


def _say(request: pb.ProcessRequest, options: Options, now_us: int) -> None:
    """Set what `options` ask for, and no field besides: each costs as much as the key."""
    refuse_floor(options)
    if options.priority:
        request.priority = options.priority
    if options.not_before is not None:
        request.delay_seconds = whole_seconds(options.not_before - from_us(now_us))
    if options.payload:
        request.payload = options.payload
    if options.meta:
        request.meta.update(options.meta)


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
    if not (request.priority or request.delay_seconds > 0 or request.payload or request.meta):
        return _DEFAULT
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
        PayloadTooLargeError: it asks for more keys than one answer holds.
    """
    match outcome:
        case None:
            return pb.ProcessResponse()
        case RequeueAfter():
            seconds = max(whole_seconds(outcome.next_delay()), 1)
            return pb.ProcessResponse(requeue_after_seconds=seconds, requeue_floor=outcome.floor)
        case QueueKeys():
            response = pb.ProcessResponse(queue_keys=map(_queue_key_message, outcome.keys))
            if response.ByteSize() > MAX_MESSAGE_BYTES:  # gRPC would say so in its own log, and to nobody else
                raise PayloadTooLargeError(
                    f"QueueKeys of {len(outcome.keys)} keys does not fit into one answer of {MAX_MESSAGE_BYTES} bytes: "
                    "ask for fewer, or enqueue them from the callback"
                )
            return response
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
        status=pb.KeyState.Status.Value(state.status.name),
        priority=state.priority,
        attempts=min(state.attempts, 2**31 - 1),
        queued_time=int(state.queued_time.timestamp()) if state.queued_time else 0,
        not_before_time=math.ceil(state.not_before.timestamp()) if state.not_before else 0,
        last_error=cut(state.last_error or state.error, MAX_LAST_ERROR_BYTES),
        attempt_began=int(state.attempt_began.timestamp()) if state.attempt_began else 0,
        lease_expires=math.ceil(state.lease_expires.timestamp()) if state.lease_expires else 0,
    )


def key_state_of(message: pb.KeyState) -> KeyState:
    """An answer as a key's state; any time <= 0 is none, since a Go receiver sends its zero time for none."""
    return KeyState(
        key=message.key,
        status=_status(message.status),
        priority=message.priority,
        attempts=message.attempts,
        queued_time=_unix(message.queued_time),
        not_before=_unix(message.not_before_time),
        last_error=message.last_error,
        attempt_began=_unix(message.attempt_began),
        lease_expires=_unix(message.lease_expires),
    )


def _status(number: int) -> KeyStatus:
    try:
        return KeyStatus[pb.KeyState.Status.Name(pb.KeyState.Status.ValueType(number))]
    except ValueError:  # a newer peer's
        return KeyStatus.UNKNOWN


def _unix(seconds: int) -> datetime | None:
    return from_us(min(seconds, MAX_DELAY_SECONDS) * 1_000_000) if seconds > 0 else None
