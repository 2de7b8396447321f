"""Stage 2: the row of a queue in the table `queues`: found, made, and put back after a hand deleted it.

Keys know their queue by the id of its row. Without the row they are in the file, and nobody finds them: a queue of that
name would get another id, and the next new queue their id, and their keys.
"""

from __future__ import annotations

import sqlite3

from workqueue.backends.sqlite.schema import DELAYED, READY, TWIN
from workqueue.errors import StoreUnusableError

__all__ = ["RowGoneError", "make_row", "put_row_back", "row_id"]

_MAKE = "INSERT OR IGNORE INTO queues (name) VALUES (?)"
# What the triggers did not count meanwhile is counted.
_PUT_BACK = f"""
INSERT OR IGNORE INTO queues (id, name, ready, delayed, twins, dead_letters) SELECT {{queue}}, {{name}},
  (SELECT count(*) FROM queued WHERE queue = {{queue}} AND place = {READY}),
  (SELECT count(*) FROM queued WHERE queue = {{queue}} AND place = {DELAYED}),
  (SELECT count(*) FROM queued WHERE queue = {{queue}} AND place = {TWIN}),
  (SELECT count(*) FROM dead WHERE queue = {{queue}})
"""
_PLACES = ("queued", "in_progress", "dead")
# Goes from one queue to the next in the index, so that it costs the same however many keys there are.
_USED = """
WITH RECURSIVE used (id) AS (
  SELECT min(queue) FROM {place}
  UNION ALL SELECT (SELECT min(queue) FROM {place} WHERE queue > used.id) FROM used WHERE used.id IS NOT NULL)
SELECT id FROM used WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM queues)
"""


class RowGoneError(StoreUnusableError):
    """The row of this queue in the table `queues` was deleted by hand; a queue that may write puts it back."""


def row_id(connection: sqlite3.Connection, name: str) -> int | None:
    """The id of the queue `name`; None = there is none."""
    found = connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
    return found and int(found[0])


def make_row(connection: sqlite3.Connection, name: str, path: str) -> None:
    """Make the queue `name`, in the transaction that is open, unless another process was faster.

    Raises:
        StoreUnusableError: there are keys of a queue without a row, which may be its keys.
    """
    nameless = sorted({row[0] for place in _PLACES for row in connection.execute(_USED.format(place=place))})
    if nameless and row_id(connection, name) is None:
        raise StoreUnusableError(_whose(nameless[0], name, path))
    connection.execute(_MAKE, (name,))


def _whose(queue: int, name: str, path: str) -> str:
    put_back = " ".join(_PUT_BACK.format(queue=queue, name=_quoted(name)).split())
    give_up = "; ".join(f"DELETE FROM {place} WHERE queue = {queue}" for place in _PLACES)
    return (
        f"{path} has no queue {name!r} in its table `queues`, but keys of a queue {queue} that is not there either: its"
        f' row was deleted. If they are the keys of {name!r}, put it back: sqlite3 {path} "{put_back}". If not, put it'
        f' back under its own name, or delete them: sqlite3 {path} "{give_up}"'
    )


def put_row_back(connection: sqlite3.Connection, queue: int, name: str) -> None:
    """Make the row of the queue `name`, whose id is known, again.

    Raises:
        StoreUnusableError: the name has another id by now.
    """
    connection.execute(_PUT_BACK.format(queue=queue, name=_quoted(name)))
    if row_id(connection, name) != queue:
        raise StoreUnusableError(
            f"the row of the queue {name!r} in the table `queues` was given another id than {queue}, which is that of"
            " its keys; give it that id back with the sqlite3 shell"
        )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
