"""Stage 2: what goes into the tables: keys and entries as parameters of statements, many at once.

A statement takes any number of keys as one JSON text, and writes any number of rows from one list of values; `rows`
says why a step may not go row by row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from typing import Any

from workqueue.rules import DeadLetter, Entry

__all__ = ["as_json", "bound", "dead_values", "insert_many", "printable", "queued_values"]

_LARGEST_CHUNK_BITS = 8
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":")).encode  # any str at all becomes valid UTF-8


def as_json(values: Any) -> bytes:
    """`values` as a parameter for `json_each(CAST(? AS TEXT))`; lone surrogates become the bytes they stand for."""
    return _encode(values).encode("utf-8", "surrogateescape")


def bound(key: str) -> str | bytes:
    """`key` as a parameter for `CAST(? AS TEXT)`."""
    return key if key.isascii() else key.encode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """`text` without what UTF-8 cannot carry: an error's text is whatever its author made of it."""
    return text.encode("utf-8", "backslashreplace").decode()


def queued_values(row_id: int | None, queue: int, entry: Entry, place: int, stamp: int) -> tuple[Any, ...]:
    """The values of a `queued` row."""
    return (
        row_id,
        queue,
        bound(entry.key),
        place,
        entry.priority,
        entry.attempts,
        entry.queued_us,
        entry.first_queued_us,
        entry.not_before_us,
        entry.floor,
        stamp,
        entry.payload,
        _encode_ascii(dict(entry.meta)) if entry.meta else None,
    )


def dead_values(queue: int, letter: DeadLetter, stamp: int) -> tuple[Any, ...]:
    """The values of a `dead` row."""
    entry = letter.entry
    return (
        queue,
        bound(entry.key),
        entry.priority,
        entry.attempts,
        entry.queued_us,
        entry.first_queued_us,
        entry.payload,
        _encode_ascii(dict(entry.meta)) if entry.meta else None,
        printable(letter.error),
        letter.failed_us,
        stamp,
    )


def insert_many(
    connection: sqlite3.Connection, statement: Callable[[int], str], rows: Collection[tuple[Any, ...]]
) -> None:
    """Insert `rows` in chunks of powers of two, so that few different statements are ever prepared."""
    left = list(rows)
    while left:
        size = 1 << min(len(left).bit_length() - 1, _LARGEST_CHUNK_BITS)
        connection.execute(statement(size), [value for row in left[:size] for value in row])
        left = left[size:]
