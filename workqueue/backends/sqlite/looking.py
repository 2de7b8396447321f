"""Stage 3: opening a queue file only to look at it: nothing is made or written, and rights to read are enough."""

from __future__ import annotations

import os
import sqlite3
import stat
from urllib.parse import quote

from workqueue.backends.sqlite.errors import translated
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.holders import Connection, refuse_inherited
from workqueue.backends.sqlite.opening import check_layout, equipped
from workqueue.backends.sqlite.same_file import looked_at
from workqueue.errors import StoreUnusableError

__all__ = ["connect_to_look", "queue_named"]


def connect_to_look(file: QueueFile) -> Connection:
    """A connection for the calling thread that writes nothing.

    Raises:
        StoreUnusableError: there is no such file, it is no queue's, or it may not be read.
        StoreUnavailableError: it cannot be read now.
    """
    refuse_inherited(file.path)
    found = looked_at(file.path)
    if found is None:
        raise StoreUnusableError(f"there is no {file.path}: nothing was ever enqueued there")
    if not stat.S_ISREG(found.st_mode):
        raise StoreUnusableError(f"{file.path} is no file; name one")
    if not found.st_size:
        raise StoreUnusableError(f"{file.path} is empty: nothing was ever enqueued there")
    # SQLite wants to make a log and shared memory where there are none, for which one needs rights to write the folder.
    # But then nobody has the file open, so that it is all there is.
    alone = not os.path.exists(file.sides()[0]) and not os.access(os.path.dirname(file.sides()[0]), os.W_OK)
    try:
        return _connected(file, "immutable=1" if alone else "mode=ro")
    except sqlite3.Error as error:
        raise translated(error, file.path) from error


def _connected(file: QueueFile, how: str) -> Connection:
    connection = Connection(f"{quote(file.path)}?{how}", uri=True, timeout=file.patience.total_seconds())
    try:
        check_layout(connection, file.path)
        return equipped(connection)
    except BaseException:
        connection.close()
        raise


def queue_named(connection: Connection, file: QueueFile) -> int:
    """The id of the queue.

    Raises:
        StoreUnusableError: the file has none of this name.
    """
    names = {row[1]: row[0] for row in connection.execute("SELECT id, name FROM queues ORDER BY name")}
    if file.name not in names:
        raise StoreUnusableError(f"{file.path} has no queue {file.name!r}; it has {', '.join(names) or 'none at all'}")
    return int(names[file.name])
