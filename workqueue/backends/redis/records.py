"""Stage 2: how an entry is packed in Redis; the other side is rules.lua. A fixed header, then meta and payload."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from workqueue.clock import to_us
from workqueue.options import NO_META, Options
from workqueue.rules import DeadLetter, Entry

__all__ = [
    "UNREADABLE",
    "key_bytes",
    "key_text",
    "pack_enqueue",
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

_HEADER_BYTES = _ENTRY.size
_PLAIN = ord("P")  # then the queued time as text: one enqueue without options, as most keys are


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
        queued_us = int(float(record[1:]))
        return Entry(key, 0, 0, queued_us, queued_us)
    floor, priority, attempts, queued_us, first_us, not_before_us = _ENTRY.unpack_from(record)
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
    owner = running[token_end + 1 : owner_end].decode()
    return running[1:token_end].decode(), owner, unpack_entry(key, running[owner_end:])


def unpack_dead(key: str, letter: bytes) -> DeadLetter:
    """The dead letter of `key`."""
    failed_us, size = _DEAD.unpack_from(letter)
    error_end = _DEAD.size + size
    error = letter[_DEAD.size : error_end].decode("utf-8", "replace")
    return DeadLetter(unpack_entry(key, letter[error_end:]), error, failed_us)


UNREADABLE = (struct.error, IndexError, ValueError, OverflowError)
"""What unpacking a record raises that somebody else wrote, or that was cut off."""


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
