"""Stage 2: rows as Python sees them: each by the names of its columns, and the entry that a row stands for.

sqlite3 gives the GIL up and takes it back around every row it steps. Beside a busy event loop each of those waits for
the interpreter's switch interval, and a batch of 100 keys took 200 ms. So a step reads any number of rows as one JSON
text, which is one row, and the same batch takes 3 ms. Payloads too: 10,000 schedules that ticked at once took 59 s to
fire while each payload was a row. `parameters` is the way back.

Whatever stands in a row, reading it never fails: values are cast in SQL and brought into range here. A key is processed
whatever it looks like; what is no number is 0, a time out of range is the nearest one, meta that is no JSON is empty.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from workqueue.backends.sqlite.parameters import as_json
from workqueue.backends.sqlite.queue_row import RowGoneError
from workqueue.clock import LATEST_US
from workqueue.options import MAX_PRIORITY, NO_META
from workqueue.rules import DeadLetter, Entry

__all__ = [
    "DEAD",
    "DEAD_PAYLOADS",
    "QUEUED",
    "QUEUED_PAYLOADS",
    "QUEUED_UNPINNED",
    "RUNNING",
    "RUNNING_PAYLOADS",
    "DeadRow",
    "PayloadsOf",
    "QueuedRow",
    "RunningRow",
    "attempts",
    "dead_rows",
    "entry_of",
    "letter_of",
    "one_row",
    "payloads",
    "queued_entry_of",
    "queued_rows",
    "running_rows",
    "whole",
]

_MAX_ATTEMPTS = 2**31 - 1


class QueuedRow(NamedTuple):
    """A row of `queued`, read by `QUEUED`."""

    key: str
    priority: Any
    attempts: Any
    queued_us: Any
    first_queued_us: Any
    meta: str | None
    payload_size: int | None
    not_before_us: Any
    floor: Any
    id: int
    stamp: int


class RunningRow(NamedTuple):
    """A row of `in_progress`, read by `RUNNING`."""

    key: str
    priority: Any
    attempts: Any
    queued_us: Any
    first_queued_us: Any
    meta: str | None
    payload_size: int | None
    token: int
    owner: str | None
    boot: int
    expires_us: int
    began_us: Any


class DeadRow(NamedTuple):
    """A row of `dead`, read by `DEAD`."""

    key: str
    priority: Any
    attempts: Any
    queued_us: Any
    first_queued_us: Any
    meta: str | None
    payload_size: int | None
    error: str | None
    failed_us: Any
    id: int
    stamp: int


_Row = TypeVar("_Row", QueuedRow, RunningRow, DeadRow)

_TEXT = {"key", "meta", "owner", "error"}
_AS_IT_IS = {"id", "token"}  # SQLite lets nothing but an integer into a primary key


def _column(name: str) -> str:
    if name == "payload_size":
        return "length(payload)"
    return name if name in _AS_IT_IS else f"CAST({name} AS {'TEXT' if name in _TEXT else 'INTEGER'})"


def _array(names: Sequence[str]) -> str:
    return f"json_array({', '.join(_column(name) for name in names)})"


QUEUED = _array(QueuedRow._fields)
QUEUED_UNPINNED = QUEUED.replace(_column("stamp"), "0")
RUNNING = _array(RunningRow._fields)
DEAD = _array(DeadRow._fields)
"""A row as a JSON array, whatever stands in it; the columns are the fields of its class, in their order.

`QUEUED_UNPINNED` is for a step, which needs no stamp: nobody else writes meanwhile. A stamp has 19 digits to be parsed.
"""


class PayloadsOf(NamedTuple):
    """How the payloads of a table are read: several as one row, by a JSON array of row ids, or one by its own."""

    together: str
    alone: str


def _payloads_of(table: str, row_id: str) -> PayloadsOf:
    return PayloadsOf(
        f"SELECT json_group_array(json_array({row_id}, hex(payload))) FROM {table}"
        f" WHERE {row_id} IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        f"SELECT CAST(payload AS BLOB) FROM {table} WHERE {row_id} = ?",
    )


QUEUED_PAYLOADS = _payloads_of("queued", "id")
RUNNING_PAYLOADS = _payloads_of("in_progress", "token")
DEAD_PAYLOADS = _payloads_of("dead", "id")

_PAYLOADS_AT_ONCE = 2 * 1024 * 1024  # bytes; as hexadecimal digits they take twice that, and again in Python


def one_row(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> sqlite3.Row:
    """The single row that `sql` returns, by the names of its columns.

    Raises:
        RowGoneError: there is none, and it is that of the queue.
    """
    row: sqlite3.Row | None = connection.execute(sql, parameters).fetchone()
    if row is None:
        raise RowGoneError
    return row


def queued_rows(text: str) -> list[QueuedRow]:
    """The rows in a JSON array of `QUEUED`."""
    return _named(QueuedRow, text)


def running_rows(text: str) -> list[RunningRow]:
    """The rows in a JSON array of `RUNNING`."""
    return _named(RunningRow, text)


def dead_rows(text: str) -> list[DeadRow]:
    """The rows in a JSON array of `DEAD`."""
    return _named(DeadRow, text)


def _named(kind: type[_Row], text: str) -> list[_Row]:
    """Rows of that kind, made as `_make` makes them, without its frame: a batch has a hundred."""
    return list(map(partial(tuple.__new__, kind), json.loads(text)))


def payloads(
    connection: sqlite3.Connection, of: PayloadsOf, sizes: Mapping[int, int | None]
) -> Mapping[int, bytes | None]:
    """The payloads of rows, by their ids.

    Args:
        connection: the rows must not change between their listing and this.
        of: which table's.
        sizes: the id of each row with the size of its payload; None = it has none.
    """
    found: dict[int, bytes | None] = {}
    for ids in _portions(sizes):
        if len(ids) == 1:
            found[ids[0]] = one_row(connection, of.alone, ids)[0]
        else:
            digits = json.loads(one_row(connection, of.together, (as_json(ids),))[0])
            found.update((row_id, bytes.fromhex(payload)) for row_id, payload in digits)
    return found


def _portions(sizes: Mapping[int, int | None]) -> Iterator[list[int]]:
    """The ids of those that have a payload, in portions of which each is not too large, or is one row."""
    portion: list[int] = []
    room = _PAYLOADS_AT_ONCE
    for row_id, size in sizes.items():
        if size is None:
            continue
        if portion and size > room:
            yield portion
            portion, room = [], _PAYLOADS_AT_ONCE
        portion.append(row_id)
        room -= size
    if portion:
        yield portion


def entry_of(
    row: QueuedRow | RunningRow | DeadRow, payload: bytes | None = None, not_before_us: int = 0, floor: bool = False
) -> Entry:
    """The entry in `row`."""
    priority, spent, queued_us, first_us = row.priority, row.attempts, row.queued_us, row.first_queued_us
    sound = 0 <= spent <= _MAX_ATTEMPTS and 0 <= queued_us <= LATEST_US and 0 <= first_us <= LATEST_US
    if not (sound and -MAX_PRIORITY <= priority <= MAX_PRIORITY):
        priority = whole(priority, -MAX_PRIORITY, MAX_PRIORITY)
        spent = attempts(spent)
        queued_us, first_us = whole(queued_us, 0, LATEST_US), whole(first_us, 0, LATEST_US)
    meta = NO_META if row.meta is None else _meta_of(row.meta)
    return Entry(row.key, priority, spent, queued_us, first_us, not_before_us, floor, payload, meta)


def queued_entry_of(row: QueuedRow, payload: bytes | None = None) -> Entry:
    """The entry of a queued row, with its not-before."""
    not_before_us = row.not_before_us
    return entry_of(row, payload, whole(not_before_us, 0, LATEST_US) if not_before_us else 0, bool(row.floor))


def letter_of(row: DeadRow, payload: bytes | None = None) -> DeadLetter:
    """The dead letter of a dead row."""
    return DeadLetter(entry_of(row, payload), row.error or "", whole(row.failed_us, 0, LATEST_US))


def attempts(value: Any) -> int:
    """`value` as a number of attempts."""
    return whole(value, 0, _MAX_ATTEMPTS)


def whole(value: Any, low: int, high: int) -> int:
    """`value` as an int in [low, high]; what is no number is 0."""
    number = value if type(value) is int else 0
    return number if low <= number <= high else min(max(number, low), high)


def _meta_of(text: str) -> Mapping[str, str]:
    try:
        meta = json.loads(text)
    except ValueError:
        return NO_META
    if not isinstance(meta, dict):
        return NO_META
    return {name: value for name, value in meta.items() if isinstance(value, str)}
