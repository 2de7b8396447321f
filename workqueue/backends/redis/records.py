"""Stage 2: how an entry is packed in Redis; the other side is records.lua. A fixed header, then meta and payload.

Somebody else may have written a record, or a part of it. A number out of range is the nearest in range, here as in the
scripts; what else cannot be read raises one of `UNREADABLE`, and the scripts take it for unreadable as well.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from workqueue.clock import LATEST_US, to_us
from workqueue.interface import KeyStatus
from workqueue.options import MAX_PRIORITY, NO_META, Options
from workqueue.rules import DeadLetter, Entry
from workqueue.throttle import Configuration

__all__ = [
    "UNREADABLE",
    "key_bytes",
    "key_text",
    "pack_enqueue",
    "status_number",
    "status_of",
    "time_us",
    "unpack_configuration",
    "unpack_dead",
    "unpack_entry",
    "unpack_queued",
    "unpack_running",
]

_ENTRY = struct.Struct(">Bqiqqq")  # floor, priority, attempts, queued, first queued, not-before
_ENQUEUE = struct.Struct(">BBqqH")  # 1, floor, priority, not-before, length of the key
_META = struct.Struct(">BH")
_LENGTH = struct.Struct(">I")
_DEAD = struct.Struct(">qI")

_STATUSES = {b"1": KeyStatus.QUEUED, b"2": KeyStatus.IN_PROGRESS, b"3": KeyStatus.DEAD_LETTER}

_HEADER_BYTES = _ENTRY.size
_PLAIN = ord("P")  # then the queued time as text: one enqueue without options, as most keys are
_NUMBER = re.compile(rb"-?[0-9.]+e?[+-]?[0-9]*")
_MOST_ATTEMPTS = 2**31 - 2  # one more, which a start makes of it, still fits
_HIGHEST_LIMIT = 2**31 - 1


def key_bytes(key: str) -> bytes:
    """A key as it is stored; one that was found in a store and is no UTF-8 comes back as it was."""
    return key.encode("utf-8", "surrogateescape")


def key_text(key: bytes) -> str:
    """The inverse of `key_bytes`."""
    return key.decode("utf-8", "surrogateescape")


def pack_enqueue(key: str, options: Options) -> bytes:
    """One enqueue as an argument of enqueue.lua: a key without options is itself."""
    o = options
    raw = key.encode()
    not_before_us = to_us(o.not_before) if o.not_before is not None else 0
    rest = _pack_rest(o.payload, o.meta)
    if not (o.priority or not_before_us or rest):  # a floor has a not-before
        return raw
    return _ENQUEUE.pack(1, o.not_before_floor, o.priority, not_before_us, len(raw)) + raw + rest


def unpack_entry(key: str, record: bytes) -> Entry:
    """The entry of `key` from its record."""
    if record[0] == _PLAIN:
        queued_us = _number_us(record[1:])
        return Entry(key, 0, 0, queued_us, queued_us)
    floor, priority, attempts, queued_us, first_us, not_before_us = _ENTRY.unpack_from(record)
    if not (0 <= attempts <= _MOST_ATTEMPTS and -MAX_PRIORITY <= priority <= MAX_PRIORITY):
        priority, attempts = _whole(priority, -MAX_PRIORITY, MAX_PRIORITY), _whole(attempts, 0, _MOST_ATTEMPTS)
    if not (0 <= queued_us <= LATEST_US and 0 <= first_us <= LATEST_US and 0 <= not_before_us <= LATEST_US):
        queued_us, first_us, not_before_us = (_whole(us, 0, LATEST_US) for us in (queued_us, first_us, not_before_us))
    if len(record) == _HEADER_BYTES:
        return Entry(key, priority, attempts, queued_us, first_us, not_before_us, bool(floor))
    payload, meta = _unpack_rest(record[_HEADER_BYTES:])
    return Entry(key, priority, attempts, queued_us, first_us, not_before_us, bool(floor), payload, meta)


def unpack_queued(key: str, queued_us: int, record: bytes | None) -> Entry:
    """The entry of a listed key; one without a record says nothing but when it was queued."""
    return unpack_entry(key, record) if record else Entry(key, 0, 0, queued_us, queued_us)


def unpack_running(key: str, running: bytes) -> tuple[str, str, Entry]:
    """Token, owner, and the entry as it was when it was started, of a key in progress."""
    token_end = running[0] + 1
    owner_end = token_end + 1 + running[token_end]
    owner = running[token_end + 1 : owner_end].decode(errors="replace")
    return key_text(running[1:token_end]), owner, unpack_entry(key, running[owner_end:])


def unpack_dead(key: str, letter: bytes) -> DeadLetter:
    """The dead letter of `key`."""
    failed_us, size = _DEAD.unpack_from(letter)
    error_end = _DEAD.size + size
    error = letter[_DEAD.size : error_end].decode("utf-8", "replace")
    return DeadLetter(unpack_entry(key, letter[error_end:]), error, failed_us)


def time_us(score: bytes) -> int:
    """The time that a score of a sorted set says; of one that is none, the nearest."""
    return _whole(float(score), 0, LATEST_US)


def status_of(text: bytes) -> KeyStatus:
    """Where a key was that was set aside; UNKNOWN if it does not say so."""
    return _STATUSES.get(text, KeyStatus.UNKNOWN)


def status_number(status: KeyStatus) -> bytes:
    """How `status` is kept with a record that was set aside; the scripts write the same."""
    return next(text for text, known in _STATUSES.items() if known is status)


def unpack_configuration(stored: bytes) -> Configuration:
    """The stored settings; what is malformed counts as not set, as for limits.lua."""
    concurrency, paused, rate = stored.split(b";") if stored.count(b";") == 2 else (b"", b"", b"")
    concurrency_limit, rate_limit = _limit(concurrency, 1), _limit(rate, 5e-324)
    return Configuration(None if concurrency_limit is None else int(concurrency_limit), paused == b"1", rate_limit)


UNREADABLE = (struct.error, IndexError, ValueError, OverflowError)
"""What unpacking a record raises that somebody else wrote, or that was cut off."""


def _number_us(text: bytes) -> int:
    if len(text) == 16 and text.isdigit():  # as one of ours is, and in range, whatever the digits
        return int(text)
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    return time_us(text)


def _whole(number: float, low: int, high: int) -> int:
    return int(min(max(number, low), high))


def _limit(text: bytes, least: float) -> float | None:
    try:
        limit = float(text) if _NUMBER.fullmatch(text) else 0.0
    except ValueError:
        return None
    return limit if least <= limit <= _HIGHEST_LIMIT else None


def _pack_rest(payload: bytes | None, meta: Mapping[str, str]) -> bytes:
    if payload is None and not meta:
        return b""
    packed = b"".join(_pack_meta(name.encode(), value.encode()) for name, value in meta.items())
    return _LENGTH.pack(len(packed)) + packed + (b"" if payload is None else b"\x01" + payload)


def _pack_meta(name: bytes, value: bytes) -> bytes:
    return _META.pack(len(name), len(value)) + name + value


def _unpack_rest(rest: bytes) -> tuple[bytes | None, Mapping[str, str]]:
    end = _LENGTH.size + _LENGTH.unpack_from(rest)[0]
    return (rest[end + 1 :] if len(rest) > end else None), _unpack_meta(rest[_LENGTH.size : end])


def _unpack_meta(packed: bytes) -> Mapping[str, str]:
    meta: dict[str, str] = {}
    at = 0
    while at + _META.size <= len(packed):  # what is cut off says nothing
        name_size, value_size = _META.unpack_from(packed, at)
        name_end = at + _META.size + name_size
        name = packed[at + _META.size : name_end].decode(errors="replace")
        at = name_end + value_size
        meta[name] = packed[name_end:at].decode(errors="replace")
    return meta or NO_META
