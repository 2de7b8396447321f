"""Stage 2: how a queue file is made and opened, and what is checked before anything is written to it."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from workqueue.backends.sqlite.errors import is_busy, translated
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.holders import Connection, refuse_inherited
from workqueue.backends.sqlite.queue_row import make_row, row_id
from workqueue.backends.sqlite.replaced import Mark, refuse_lone_log, refuse_replaced
from workqueue.backends.sqlite.same_file import SameFile
from workqueue.backends.sqlite.schema import (
    APPLICATION_ID,
    FIRST_MARK,
    LAYOUT,
    LOG_MARK,
    PAGE_BYTES,
    READABLE,
    STATEMENTS,
)
from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = [
    "OLDEST_SQLITE",
    "Opened",
    "check_layout",
    "connect",
    "open_queue_file",
    "sync_directory",
]

log = logging.getLogger(__name__)

OLDEST_SQLITE = (3, 34, 0)  # the first with every JSON and upsert feature used here; the one in RHEL 9

# Enough for the pages that every batch needs. The others are with the kernel, for a few microseconds each. A larger
# cache costs more than it saves: whenever a tree is rebalanced SQLite renumbers pages by way of a number beyond the
# file, and then the commit looks at every page of the cache. With 128 MiB that was up to a third of a key's CPU among
# a million.
_CACHE_KIB = 16 * 1024
# In case `wal.Log`, which writes the log back much earlier, cannot.
_CHECKPOINT_BYTES = 256 * 1024 * 1024

# What may be over at the next try.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_T = TypeVar("_T")


def connect(file: QueueFile, how: str) -> Connection:
    """A connection for the calling thread, with what every connection of ours sets; `how` is as for `Connection`.

    Raises:
        StoreUnusableError: this process was forked while its parent had the file open.
    """
    refuse_inherited(file.path)
    connection = Connection(file.path, how, timeout=file.patience.total_seconds())
    connection.row_factory = sqlite3.Row
    # A key that is not UTF-8 must not make the rows around it unreadable: it travels as lone surrogates and back.
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:  # a file that is no database says so at the first statement
        connection.close()
        raise
    return connection


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is open: the writer's connection, the queue's id, the mark that it keeps, and which file it is."""

    connection: Connection
    queue: int
    mark: Mark
    same_file: SameFile


def open_queue_file(file: QueueFile, boot: int) -> Opened:
    """Open `file` for writing; it is made if it does not exist.

    Args:
        file: the file and the name of the queue.
        boot: the id of this boot.

    Raises:
        StoreUnusableError: the file is something else, from a newer release, or may not be written; see the message.
        StoreUnavailableError: it stayed locked for `patience`.
    """
    _check_library()
    refuse_inherited(file.path)
    refuse_lone_log(file)
    _make(file)
    filled_by = refuse_replaced(file, boot)
    try:
        connection = connect(file, "mode=rw")
        try:
            _patiently(lambda: _prepare(connection, file.path), file.patience)
            mark = Mark(connection, file.path, boot, filled_by)
            queue = _patiently(lambda: _queue_id(connection, file, mark), file.patience)
            connection.execute("PRAGMA busy_timeout = 0")  # the writer waits by itself, to answer each call in its time
            _check_writable(connection)
            same_file = SameFile(file, connection.file_id)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise translated(error, file.path) from error
    return Opened(connection, queue, mark, same_file)


def _check_library() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreUnusableError(f"this Python has SQLite {sqlite3.sqlite_version}; sqlite:// needs {oldest} or newer")


def _make(file: QueueFile) -> None:
    """Make the file if there is none. SQLite gives its log and its shared memory the same rights."""
    try:
        made = os.open(os.path.realpath(file.path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file.mode)
    except FileExistsError:
        if not os.path.isfile(file.path) and os.path.exists(file.path):
            raise StoreUnusableError(f"{file.path} is no file; name one") from None
        return
    except OSError as error:
        if error.errno in _PASSING:
            raise StoreUnavailableError(f"{file.path} cannot be made now ({error.strerror})") from error
        raise StoreUnusableError(
            f"{file.path} cannot be made ({error.strerror}); see that this user may do so"
        ) from error
    try:
        os.fchmod(made, file.mode)  # the umask may have taken some of it away
    except OSError as error:  # a file system that knows no rights
        log.warning("the rights of %s cannot be set (%s)", file.path, error.strerror)
    finally:
        os.close(made)


def _patiently(step: Callable[[], _T], patience: timedelta) -> _T:
    """Run `step` again while the file is locked: switching to WAL does not go through SQLite's own busy timeout."""
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)


def _prepare(connection: Connection, path: str) -> None:
    if _is_empty(connection, path):
        _create(connection, path)
    _complete(connection)
    mode = _pragma(connection, "journal_mode = WAL")
    if mode != "wal":
        raise StoreUnusableError(
            f"{path}: this file system cannot hold a write-ahead log; put the file on a local disk"
        )
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_BYTES // page_bytes}")
    connection.execute("PRAGMA secure_delete = OFF")  # some distributions zero every freed page by default
    connection.execute("PRAGMA fullfsync = ON")  # on macOS a plain fsync leaves the data in the drive's cache
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def _is_empty(connection: Connection, path: str) -> bool:
    """Whether the tables have yet to be made.

    Raises:
        StoreUnusableError: the file is no queue, or one that this release does not know.
    """
    # Tables first: another process may make them, and the number with them, between two of these reads.
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return True
    check_layout(connection, path)
    return False


def check_layout(connection: sqlite3.Connection, path: str) -> None:
    """Return if the file is a queue's, and one that this release knows.

    Raises:
        StoreUnusableError: it is not.
    """
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreUnusableError(f"{path} is the database of another program; give the queue a file of its own")
    layout = _pragma(connection, "user_version")
    if layout not in READABLE:
        raise StoreUnusableError(
            f"{path} has layout {layout}, this release works layout {READABLE[-1]}; run a newer release on it"
        )


def _complete(connection: Connection) -> None:
    """Add what files of before the first release lack."""
    if not _is_complete(connection):
        with _transaction(connection):
            if not _has(connection, "began_us"):
                connection.execute("ALTER TABLE in_progress ADD COLUMN began_us INTEGER NOT NULL DEFAULT 0")
            if not _has(connection, "log_mark"):
                connection.execute(LOG_MARK)
            connection.execute(FIRST_MARK)


def _is_complete(connection: Connection) -> bool:
    if not (_has(connection, "began_us") and _has(connection, "log_mark")):
        return False
    return bool(connection.execute("SELECT count(*) FROM log_mark").fetchone()[0])  # a hand may have deleted it


def _has(connection: Connection, name: str) -> bool:
    """Whether a table or column of this name was ever made."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE sql LIKE ?", (f"% {name} %",)).fetchone()
    return bool(found[0])


def _create(connection: Connection, path: str) -> None:
    """Make the tables, in one transaction, so that nobody ever sees half of them."""
    _pragma(connection, f"page_size = {PAGE_BYTES}")
    _pragma(connection, "journal_mode = WAL")
    with _transaction(connection):
        if _is_empty(connection, path):  # another process may have been faster
            for statement in STATEMENTS:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
    sync_directory(path)


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def sync_directory(path: str) -> None:
    """Make the file's name durable, not only its content."""
    try:
        directory = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        log.warning(
            "the directory of %s cannot be synced (%s): a power cut in the next seconds may take the new file along",
            path,
            error.strerror,
        )


def _queue_id(connection: Connection, file: QueueFile, mark: Mark) -> int:
    while (found := row_id(connection, file.name)) is None:  # asked first: an existing one opens while it is locked
        with _transaction(connection):
            make_row(connection, file.name, file.path)
            mark.set()
    return found


def _check_writable(connection: Connection) -> None:
    """Find out now rather than at the first enqueue; a file that is locked is fine."""
    try:
        connection.execute("BEGIN IMMEDIATE")  # on a read-only file this only begins to read
        connection.execute("UPDATE queues SET paused = paused")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            raise


def _pragma(connection: sqlite3.Connection, setting: str) -> object:
    row = connection.execute(f"PRAGMA {setting}").fetchone()
    return row[0] if row else None
