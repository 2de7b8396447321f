"""Stage 2: how entries travel between Python and the tables: many at once, as one JSON text or one list of values.

sqlite3 gives the GIL up and takes it back around every row it steps. Beside a busy event loop each of those waits for
the interpreter's switch interval, and a batch of 100 keys took 200 ms. So a step touches any number of keys with a few
statements that return one row each, and the same batch takes 3 ms.

Whatever stands in a row, reading it never fails: values are cast in SQL and brought into range here. A key is processed
whatever it looks like; what is no number is 0, a time out of range is the nearest one, meta that is no JSON is empty.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from workqueue.clock import LATEST_US
from workqueue.options import MAX_PRIORITY, NO_META
from workqueue.rules import DeadLetter, Entry

__all__ = [
    "COMMON",
    "QUEUED_PAYLOADS",
    "WAITING",
    "Row",
    "as_json",
    "attempts",
    "bound",
    "dead_values",
    "entry_of",
    "insert_many",
    "letter_of",
    "one_row",
    "payloads",
    "printable",
    "queued_entry_of",
    "queued_values",
    "whole",
]

Row = list[Any]
"""One element of a JSON answer: `COMMON` first, then what is special to its table."""

COMMON = (
    "CAST(key AS TEXT), CAST(priority AS INTEGER), CAST(attempts AS INTEGER), CAST(queued_us AS INTEGER),"
    " CAST(first_queued_us AS INTEGER), CAST(meta AS TEXT), payload IS NOT NULL"
)
"""The JSON-safe columns that every place of a key has, as `entry_of` reads them; none but meta may be NULL."""

WAITING = f"{COMMON}, CAST(not_before_us AS INTEGER), CAST(floor AS INTEGER), id"
"""The JSON-safe columns of a queued row, as `queued_entry_of` reads them."""

QUEUED_PAYLOADS = """
SELECT id, CAST(payload AS BLOB) FROM queued WHERE id IN (SELECT value FROM json_each(CAST(? AS TEXT)))
"""
"""For `payloads`, by the ids of queued rows."""

_MAX_ATTEMPTS = 2**31 - 1
_LARGEST_CHUNK_BITS = 8
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":")).encode  # any str at all becomes valid UTF-8


# from rows


def one_row(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> Any:
    """The single row that `sql` returns."""
    return connection.execute(sql, parameters).fetchone()


def entry_of(row: Row, payload: bytes | None = None, not_before_us: int = 0, floor: bool = False) -> Entry:
    """The entry in `row`, whose first columns are `COMMON`."""
    key, priority, spent, queued_us, first_us, meta = row[:6]
    sound = 0 <= spent <= _MAX_ATTEMPTS and 0 <= queued_us <= LATEST_US and 0 <= first_us <= LATEST_US
    if not (sound and -MAX_PRIORITY <= priority <= MAX_PRIORITY):
        priority = whole(priority, -MAX_PRIORITY, MAX_PRIORITY)
        spent = attempts(spent)
        queued_us, first_us = whole(queued_us, 0, LATEST_US), whole(first_us, 0, LATEST_US)
    about = NO_META if meta is None else _meta_of(meta)
    return Entry(key, priority, spent, queued_us, first_us, not_before_us, floor, payload, about)


def queued_entry_of(row: Row, payload: bytes | None = None) -> Entry:
    """The entry of a queued row, whose first columns are `WAITING`."""
    return entry_of(row, payload, whole(row[7], 0, LATEST_US), bool(row[8]))


def letter_of(row: Row, payload: bytes | None = None) -> DeadLetter:
    """The dead letter of a dead row: `COMMON`, error, failed_us and more."""
    return DeadLetter(entry_of(row, payload), row[7] or "", whole(row[8], 0, LATEST_US))


def attempts(value: Any) -> int:
    """`value` as a number of attempts."""
    return whole(value, 0, _MAX_ATTEMPTS)


def whole(value: Any, low: int, high: int) -> int:
    """`value` as an int in [low, high]; what is no number is 0."""
    number = value if type(value) is int else 0
    return number if low <= number <= high else min(max(number, low), high)


def payloads(connection: sqlite3.Connection, sql: str, rows: Iterable[tuple[int, Row]]) -> dict[int, bytes]:
    """The payloads of those of `rows` (id, row) that have one. `sql` takes a JSON array of ids."""
    wanted = [number for number, row in rows if row[6]]
    return dict(connection.execute(sql, (as_json(wanted),)).fetchall()) if wanted else {}


def _meta_of(text: str) -> Mapping[str, str]:
    try:
        meta = json.loads(text)
    except ValueError:
        return NO_META
    if not isinstance(meta, dict):
        return NO_META
    return {name: value for name, value in meta.items() if isinstance(value, str)}


# to rows


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
