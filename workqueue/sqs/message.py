"""Stage 1: a key as an SQS message, there and back (pure).

The body is a JSON object in ASCII, because SQS takes only characters that XML has. A payload travels in base64.
Whatever is not said is left out. `{"workqueue": 1}` marks our messages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from workqueue.errors import InvalidOptionsError, PayloadTooLargeError
from workqueue.key import validate_key
from workqueue.options import Options

__all__ = ["MAX_MESSAGE_BYTES", "Outgoing", "outgoing", "read_body", "stamped"]

MAX_MESSAGE_BYTES = 1024 * 1024
"""Of one message, and of all messages of one request; since August 2025."""

_VERSION = 1
_STAMP = "sqs-message-id"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is ready to be sent.

    Args:
        key: the key that it carries.
        options: what is said about it.
        body: the message.
        number: the same each time it is sent, and no other message has it. The key would not do: SQS drops for five
            minutes what has a number that it has seen, and with it the events that came in that time.
    """

    key: str
    options: Options
    body: str
    number: str

    def entry(self, place: int, *, fifo: bool) -> dict[str, Any]:
        """It, as number `place` of a batch."""
        entry = {"Id": str(place), "MessageBody": self.body}
        if fifo:
            group = hashlib.sha256(self.key.encode()).hexdigest()  # a group has 128 characters at most, of fewer kinds
            entry |= {"MessageGroupId": group, "MessageDeduplicationId": self.number}
        return entry


def stamped(options: Options) -> Options:
    """`options` with the number of a message in its meta, if there is room."""
    if _STAMP in options.meta:
        return options
    try:
        return replace(options, meta={**options.meta, _STAMP: str(uuid.uuid4())})
    except InvalidOptionsError:  # meta is full: each time it is sent it is a message of its own
        return options


def outgoing(key: str, options: Options) -> Outgoing:
    """The message that carries `key`.

    Raises:
        InvalidKeyError: it is no key.
        PayloadTooLargeError: the message would be larger than SQS takes.
    """
    meta = dict(options.meta)
    number = meta.pop(_STAMP, "") or str(uuid.uuid4())
    said: dict[str, Any] = {"workqueue": _VERSION, "key": validate_key(key)}
    if options.priority:
        said["priority"] = options.priority
    if options.not_before is not None:
        said["not_before"] = options.not_before.isoformat()
        said["floor"] = options.not_before_floor
    if options.payload is not None:
        said["payload_base64"] = base64.b64encode(options.payload).decode()
    if meta:
        said["meta"] = meta
    body = json.dumps(said, separators=(",", ":"))
    if len(body) > MAX_MESSAGE_BYTES:
        raise PayloadTooLargeError(f"the message has {len(body)} bytes, SQS takes at most {MAX_MESSAGE_BYTES}")
    return Outgoing(key, options, body, number)


def read_body(body: str) -> tuple[str, Options] | None:
    """The key that a message of ours carries; None if it is not one of ours.

    Raises:
        InvalidOptionsError: it says that it is ours, and is not.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("workqueue") != _VERSION:
        return None
    try:
        not_before = said.get("not_before")
        payload = said.get("payload_base64")
        options = Options(
            said.get("priority", 0),
            datetime.fromisoformat(not_before) if not_before is not None else None,
            said.get("floor", False),
            base64.b64decode(payload, validate=True) if payload is not None else None,
            said.get("meta", {}),
        )
        return said["key"], options
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidOptionsError(f"the message cannot be read: {error!r}") from error
