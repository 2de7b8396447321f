"""Stage 3: a queued key in some 120 bytes, which sort as keys start; hundreds of thousands of them are kept in memory.

A record is one `bytes`: priority and queued time, the key, what is unusual in the metadata as JSON, and a trailer of
fixed length. Records compare like the keys start: priority descending, then queued time, then name.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.metadata import NO_TIME, entry_of, priority_text, time_text
from workqueue.rules import Entry

__all__ = ["Candidate", "Version", "pack", "priority_bytes", "queued_us_of", "record_behind", "unpack", "version_of"]

Version = tuple[int, int]
"""Generation and metageneration of an object."""

_BIAS = 1 << 62
_ORDER = struct.Struct(">QQ")  # priority descending, queued time
_PRIORITY_BYTES = 8
_MOST_IN_ORDER = 2**64 - 1
_BEHIND_ALL = b"\xff"  # neither JSON nor a generation of this millennium begins so
_END_OF_KEY = b"\0"  # lets a name sort before those that it begins

# generation, metageneration, created, size, the marks below, the bytes of the key
_TRAILER = struct.Struct(">QIQIBH")
_MOST_SIZE = 2**32 - 1

# What is so in nearly every object takes a bit instead of its text.
_SEEN_IN_A_LISTING = 1
_USUAL_PRIORITY = 2
_USUAL_QUEUED_TIME = 4
_NO_NOT_BEFORE = 8
_NO_ATTEMPTS = 16


@dataclass(slots=True)
class Candidate:
    """A queued key, as far as this process knows. Never changed in place.

    Args:
        key: its name without folder.
        stored: the object, to be pinned; its name is left empty by `unpack`.
        entry: what it says.
        listed: it was seen in a listing, rather than stored by ourselves since.
    """

    key: str
    stored: Stored
    entry: Entry
    listed: bool = False

    @property
    def version(self) -> Version:
        return self.stored.version


def pack(candidate: Candidate) -> bytes:
    """The record of a queued key."""
    stored, entry = candidate.stored, candidate.entry
    unusual = dict(stored.metadata)
    marks = _SEEN_IN_A_LISTING if candidate.listed else 0
    if unusual.get("priority") == priority_text(entry.priority):
        marks |= _USUAL_PRIORITY
        del unusual["priority"]
    if unusual.get("queued-time") == time_text(entry.queued_us):
        marks |= _USUAL_QUEUED_TIME
        del unusual["queued-time"]
    if unusual.get("not-before") == NO_TIME:
        marks |= _NO_NOT_BEFORE
        del unusual["not-before"]
    if unusual.get("attempts") == "0":
        marks |= _NO_ATTEMPTS
        del unusual["attempts"]
    name, size = candidate.key.encode(), min(stored.size, _MOST_SIZE)
    return b"".join(
        (
            _ORDER.pack(_BIAS - entry.priority, entry.queued_us),
            name,
            _END_OF_KEY,
            json.dumps(unusual, separators=(",", ":")).encode() if unusual else b"",
            _TRAILER.pack(stored.generation, stored.metageneration, stored.created_us, size, marks, len(name)),
        )
    )


def unpack(record: bytes) -> Candidate:
    """What `pack` packed."""
    trailer_at = len(record) - _TRAILER.size
    generation, metageneration, created_us, size, marks, key_bytes = _TRAILER.unpack_from(record, trailer_at)
    negated_priority, queued_us = _ORDER.unpack_from(record)
    end_of_key = _ORDER.size + key_bytes
    key, unusual = record[_ORDER.size : end_of_key].decode(), record[end_of_key + len(_END_OF_KEY) : trailer_at]
    metadata: dict[str, str] = json.loads(unusual) if unusual else {}
    if marks & _USUAL_PRIORITY:
        metadata["priority"] = priority_text(_BIAS - negated_priority)
    if marks & _USUAL_QUEUED_TIME:
        metadata["queued-time"] = time_text(queued_us)
    if marks & _NO_NOT_BEFORE:
        metadata["not-before"] = NO_TIME
    if marks & _NO_ATTEMPTS:
        metadata["attempts"] = "0"
    stored = Stored("", generation, metageneration, created_us, size, metadata)
    entry = entry_of(metadata, key, created_us, size)
    return Candidate(key, stored, entry, listed=bool(marks & _SEEN_IN_A_LISTING))


def record_behind(priority: int, queued_us: int, key: str) -> bytes:
    """What sorts behind every record of a key at this place, and before the record of the next one."""
    at = _ORDER.pack(*(min(max(number, 0), _MOST_IN_ORDER) for number in (_BIAS - priority, queued_us)))
    return at + key.encode("utf-8", "surrogateescape") + _END_OF_KEY + _BEHIND_ALL


def version_of(record: bytes) -> Version:
    """The version of the object that a record is about."""
    generation, metageneration, *_ = _TRAILER.unpack_from(record, len(record) - _TRAILER.size)
    return generation, metageneration


def priority_bytes(record: bytes) -> bytes:
    """What the records of one priority have in common; the highest priority comes first."""
    return record[:_PRIORITY_BYTES]


def queued_us_of(record: bytes) -> int:
    """Since when the key of a record waits at its place, in microseconds."""
    queued_us: int = _ORDER.unpack_from(record)[1]
    return queued_us
