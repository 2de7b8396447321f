"""Stage 1: notes that Pub/Sub pushes about the objects of a bucket: what a note says, and whether it is news (pure).

A bucket makes a note of every change, of most keys several: when it is queued, started, settled.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = ["MAX_NOTE_BYTES", "Note", "read_note"]

MAX_NOTE_BYTES = 64 * 1024

_QUEUED = re.compile(r"(?:[^\n]*?/)?queued/")
_STORED = frozenset({"", "OBJECT_FINALIZE", "OBJECT_METADATA_UPDATE"})


@dataclass(frozen=True, slots=True)
class Note:
    """What was pushed.

    Args:
        number: Pub/Sub's own, the same when a note is delivered again.
        event: what happened to an object, such as `OBJECT_FINALIZE`; empty for a note about no object.
        name: the object's.
    """

    number: str
    event: str = ""
    name: str = ""

    @property
    def is_news(self) -> bool:
        """Whether there may be a key to start; a note about no object was sent by somebody who means it."""
        return self.event in _STORED and (not self.event or _QUEUED.match(self.name) is not None)


def read_note(body: bytes) -> Note | None:
    """The note in a push request's body; None if it is none.

    Sources: https://cloud.google.com/pubsub/docs/push#receive_push,
    https://cloud.google.com/storage/docs/pubsub-notifications#attributes
    """
    try:
        message = json.loads(body)["message"]
        attributes = message.get("attributes") or {}
        number = str(message.get("messageId") or message["message_id"])
        return Note(number, str(attributes.get("eventType", "")), str(attributes.get("objectId", "")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
