"""Stage 3: opening a queue file only to look at it: nothing is made or written, and rights to read are enough."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from workqueue.backends.sqlite.errors import translated
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.holders import Connection
from workqueue.backends.sqlite.opening import check_layout, connect
from workqueue.backends.sqlite.replaced import refuse_lone_log
from workqueue.backends.sqlite.same_file import looked_at
from workqueue.errors import StoreUnusableError

__all__ = ["closed_without_writing_back", "connect_to_look", "queue_named"]

log = logging.getLogger(__name__)


def connect_to_look(file: QueueFile) -> Connection:
    """A connection for the calling thread that writes nothing.

    Raises:
        StoreUnusableError: there is no such file, it is no queue's, or it may not be read.
        StoreUnavailableError: it cannot be read now.
    """
    refuse_lone_log(file)
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
    connection = connect(file, how)
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreUnusableError(
                f"{file.path} holds no queue: nothing was ever enqueued there, or it was moved without its log"
            )
        check_layout(connection, file.path)
        return connection
    except BaseException:
        connection.close()
        raise


@contextmanager
def closed_without_writing_back(file: QueueFile) -> Iterator[None]:
    """Meanwhile, the last connection that may write is closed, and leaves a log that is damaged where it is.

    SQLite writes the log back when the last connection is closed; one that may only read does not.
    """
    try:
        last = Connection(file.path, "mode=ro")
    except sqlite3.Error as error:
        log.warning("%s cannot be opened (%s): closing it writes a damaged log back", file.path, error)
        yield
        return
    with closing(last):
        with suppress(sqlite3.Error):  # what it reads may be damaged; it has its lock all the same
            last.execute("SELECT count(*) FROM sqlite_master")
        yield


def queue_named(connection: Connection, file: QueueFile) -> int:
    """The id of the queue.

    Raises:
        StoreUnusableError: the file has none of this name.
    """
    names = {row[1]: row[0] for row in connection.execute("SELECT id, name FROM queues ORDER BY name")}
    if file.name not in names:
        raise StoreUnusableError(f"{file.path} has no queue {file.name!r}; it has {', '.join(names) or 'none at all'}")
    return int(names[file.name])
