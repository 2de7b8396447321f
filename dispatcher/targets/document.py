"""Stage 5: what a handler in another language is given of a key, and the error for what it answers (pure)."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from workqueue.attempt import Attempt
from workqueue.errors import WorkQueueError

__all__ = ["MAX_REASON_BYTES", "HandlerFailedError", "key_document"]

MAX_REASON_BYTES = 1024
"""How much of what a handler says about its failure is kept."""


class HandlerFailedError(WorkQueueError):
    """The handler failed; the message has its status or exit code, and what it said. The key is tried again."""


def key_document(key: str, attempt: Attempt) -> dict[str, Any]:
    """The key and its attempt as plain data.

    | field | meaning |
    |---|---|
    | `key` | what to reconcile |
    | `attempts` | which attempt this is, from 1 |
    | `priority` | as enqueued |
    | `meta` | the small strings that travel with the key |
    | `queuedTime` | when it was queued for this attempt, RFC 3339 |
    | `remainingSeconds` | how long the handler may run |
    | `payload` | the payload, if there is one and it is UTF-8 |
    | `payloadBase64` | the payload, if it is not |
    """
    document: dict[str, Any] = {
        "key": key,
        "attempts": attempt.attempts,
        "priority": attempt.priority,
        "meta": dict(attempt.meta),
        "remainingSeconds": attempt.remaining().total_seconds(),
    }
    if attempt.queued_time is not None:
        document["queuedTime"] = attempt.queued_time.isoformat().replace("+00:00", "Z")
    if attempt.payload is not None:
        document.update(_payload(attempt.payload))
    return document


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payloadBase64": b64encode(payload).decode()}
