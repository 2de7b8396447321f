"""Stage 2: the tables of a SQLite queue file, and how a connection to them is opened.

A key is in `queued`, in `in_progress`, in both (its queued row is then a twin), and perhaps in `dead`. `place` says in
which of the partial indexes a queued row is, so that no step ever scans rows it cannot use: starts read `queued_ready`,
promotion reads `queued_due`, and twins and delayed keys are in neither's way.

Layout: `PRAGMA user_version`. A release works files of the layouts in `READABLE` and creates `LAYOUT`. When a layout
must change, a release first learns to work the new one (`READABLE`), and only the one after it writes it; so releases N
and N-1 always work one file together, and an older one refuses what it does not know.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from workqueue.backends.sqlite.errors import is_busy, translated
from workqueue.errors import StoreUnusableError

__all__ = [
    "APPLICATION_ID",
    "DELAYED",
    "LAYOUT",
    "OLDEST_SQLITE",
    "PATIENCE",
    "READABLE",
    "READY",
    "TWIN",
    "QueueFile",
    "boot_id",
    "connect",
    "open_queue_file",
]

PATIENCE = timedelta(seconds=5)

LAYOUT = 1
READABLE = (1,)
APPLICATION_ID = 0x776B7131  # "wkq1": tells a queue file from somebody else's database
OLDEST_SQLITE = (3, 34, 0)  # the first with every JSON and upsert feature used here; the one in RHEL 9

READY, DELAYED, TWIN = 0, 1, 2
"""`queued.place`: eligible; its not-before is to come; waiting for its own key's attempt to end."""

# One row per queue of the file: its stored settings, its starts saved up, and the counts that triggers keep.
_QUEUES = """
CREATE TABLE queues (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
  concurrency INTEGER, paused INTEGER NOT NULL DEFAULT 0, starts_per_second REAL,
  saved_starts REAL NOT NULL DEFAULT 0, saved_at_us INTEGER NOT NULL DEFAULT 0,
  ready INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0,
  twins INTEGER NOT NULL DEFAULT 0, dead_letters INTEGER NOT NULL DEFAULT 0)
"""

# `stamp` is new with every change of a row: it proves to a handle that the row is the one it listed. The checks are on
# what decides whether a key ever starts: a hand that slips in the sqlite3 shell is refused, not a key stuck for good.
_QUEUED = """
CREATE TABLE queued (
  id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key TEXT NOT NULL CHECK (typeof(key) = 'text'),
  place INTEGER NOT NULL CHECK (place IN (0, 1, 2)),
  priority INTEGER NOT NULL, attempts INTEGER NOT NULL, queued_us INTEGER NOT NULL, first_queued_us INTEGER NOT NULL,
  not_before_us INTEGER NOT NULL DEFAULT 0 CHECK (typeof(not_before_us) = 'integer'),
  floor INTEGER NOT NULL DEFAULT 0, stamp INTEGER NOT NULL DEFAULT 0, payload BLOB, meta TEXT)
"""

# The token is the primary key: who does not know it can neither settle nor renew. `expires_us` counts on the clock of
# the boot `boot`; a row of another boot is an orphan.
_IN_PROGRESS = """
CREATE TABLE in_progress (
  token INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key TEXT NOT NULL CHECK (typeof(key) = 'text'),
  priority INTEGER NOT NULL, attempts INTEGER NOT NULL, queued_us INTEGER NOT NULL, first_queued_us INTEGER NOT NULL,
  payload BLOB, meta TEXT, owner TEXT NOT NULL, boot INTEGER NOT NULL,
  expires_us INTEGER NOT NULL CHECK (typeof(expires_us) = 'integer'))
"""

_DEAD = """
CREATE TABLE dead (
  id INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key TEXT NOT NULL CHECK (typeof(key) = 'text'),
  priority INTEGER NOT NULL, attempts INTEGER NOT NULL, queued_us INTEGER NOT NULL, first_queued_us INTEGER NOT NULL,
  payload BLOB, meta TEXT, error TEXT NOT NULL, failed_us INTEGER NOT NULL, stamp INTEGER NOT NULL DEFAULT 0)
"""

_INDEXES = (
    "CREATE UNIQUE INDEX queued_key ON queued (queue, key)",
    f"CREATE INDEX queued_ready ON queued (queue, priority DESC, queued_us, key) WHERE place = {READY}",
    f"CREATE INDEX queued_due ON queued (queue, not_before_us) WHERE place = {DELAYED}",
    f"CREATE INDEX queued_twin ON queued (queue, key) WHERE place = {TWIN}",
    f"CREATE INDEX queued_since ON queued (queue, max(queued_us, not_before_us)) WHERE place = {READY}",
    "CREATE INDEX queued_attempts ON queued (queue, attempts) WHERE attempts > 0",
    "CREATE UNIQUE INDEX in_progress_key ON in_progress (queue, key)",
    "CREATE INDEX in_progress_lease ON in_progress (queue, boot, expires_us)",
    "CREATE UNIQUE INDEX dead_key ON dead (queue, key)",
    "CREATE INDEX dead_page ON dead (queue, id)",
)

# Counts are kept by triggers rather than by the steps, so that they stay right when an operator deletes rows by hand.
_TRIGGERS = (
    f"""
CREATE TRIGGER queued_in AFTER INSERT ON queued BEGIN UPDATE OR ROLLBACK queues SET
  ready = ready + (NEW.place = {READY}),
  delayed = delayed + (NEW.place = {DELAYED}),
  twins = twins + (NEW.place = {TWIN})
  WHERE id = NEW.queue; END
""",
    f"""
CREATE TRIGGER queued_out AFTER DELETE ON queued BEGIN UPDATE OR ROLLBACK queues SET
  ready = ready - (OLD.place = {READY}),
  delayed = delayed - (OLD.place = {DELAYED}),
  twins = twins - (OLD.place = {TWIN})
  WHERE id = OLD.queue; END
""",
    f"""
CREATE TRIGGER queued_moved AFTER UPDATE OF place ON queued WHEN OLD.place <> NEW.place BEGIN
  UPDATE OR ROLLBACK queues SET
  ready = ready + (NEW.place = {READY}) - (OLD.place = {READY}),
  delayed = delayed + (NEW.place = {DELAYED}) - (OLD.place = {DELAYED}),
  twins = twins + (NEW.place = {TWIN}) - (OLD.place = {TWIN})
  WHERE id = NEW.queue; END
""",
    """
CREATE TRIGGER dead_in AFTER INSERT ON dead BEGIN UPDATE OR ROLLBACK queues SET
  dead_letters = dead_letters + 1 WHERE id = NEW.queue; END
""",
    """
CREATE TRIGGER dead_out AFTER DELETE ON dead BEGIN UPDATE OR ROLLBACK queues SET
  dead_letters = dead_letters - 1 WHERE id = OLD.queue; END
""",
)

# What a large backlog costs is its index of keys: each key is on a page of its own. Between two checkpoints such a page
# is written back once, however often it changed, and the cache holds the index of some millions of keys. Both are upper
# limits: a queue of a thousand keys needs a few hundred KiB.
_CHECKPOINT_PAGES = 16_000
_CACHE_KIB = 128 * 1024
# More than that many pages, so that the log is written over and over instead of being cut and grown again.
_WAL_KEPT_BYTES = 128 * 1024 * 1024

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class QueueFile:
    """Where a queue is and how it is written.

    Args:
        path: the file, absolute.
        name: the queue within it.
        patience: how long a call waits for the file's lock.
        fsync: whether enqueues and settles are answered only once they are on disk.
    """

    path: str
    name: str = "default"
    patience: timedelta = PATIENCE
    fsync: bool = True


def connect(file: QueueFile) -> sqlite3.Connection:
    """A connection for the calling thread, with what every connection of ours sets."""
    patience = file.patience.total_seconds()
    connection = sqlite3.connect(file.path, timeout=patience, isolation_level=None, cached_statements=256)
    # A key that is not UTF-8 must not make the rows around it unreadable: it travels as lone surrogates and back.
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
    except BaseException:  # a file that is no database says so at the first statement
        connection.close()
        raise
    return connection


def open_queue_file(file: QueueFile) -> tuple[sqlite3.Connection, int]:
    """The writer's connection to `file`, which is made if it does not exist, and the id of its queue.

    Raises:
        StoreUnusableError: the file is something else, from a newer release, or may not be written; see the message.
        StoreUnavailableError: it stayed locked for `patience`.
    """
    _check_library()
    try:
        connection = connect(file)
        try:
            _patiently(lambda: _prepare(connection, file.path), file.patience)
            queue = _patiently(lambda: _queue_id(connection, file.name), file.patience)
            connection.execute("PRAGMA busy_timeout = 0")  # the writer waits by itself, to answer each call in its time
            _check_writable(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise translated(error, file.path) from error
    return connection, queue


def _check_library() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreUnusableError(f"this Python has SQLite {sqlite3.sqlite_version}; sqlite:// needs {oldest} or newer")


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


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    if _is_empty(connection, path):
        _create(connection, path)
    mode = _pragma(connection, "journal_mode = WAL")
    if mode != "wal":
        raise StoreUnusableError(
            f"{path}: this file system cannot hold a write-ahead log; put the file on a local disk"
        )
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
    connection.execute("PRAGMA secure_delete = OFF")  # some distributions zero every freed page by default
    connection.execute("PRAGMA fullfsync = ON")  # on macOS a plain fsync leaves the data in the drive's cache
    connection.execute("PRAGMA checkpoint_fullfsync = ON")


def _is_empty(connection: sqlite3.Connection, path: str) -> bool:
    """Whether the tables have yet to be made.

    Raises:
        StoreUnusableError: the file is no queue, or one that this release does not know.
    """
    # Tables first: another process may make them, and the number with them, between two of these reads.
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return True
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreUnusableError(f"{path} is the database of another program; give the queue a file of its own")
    layout = _pragma(connection, "user_version")
    if layout not in READABLE:
        raise StoreUnusableError(
            f"{path} has layout {layout}, this release works layout {READABLE[-1]}; run a newer release on it"
        )
    return False


def _create(connection: sqlite3.Connection, path: str) -> None:
    """Make the tables, in one transaction, so that nobody ever sees half of them."""
    _pragma(connection, "journal_mode = WAL")
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")
        try:
            if _is_empty(connection, path):  # another process may have been faster
                for statement in (_QUEUES, _QUEUED, _IN_PROGRESS, _DEAD, *_INDEXES, *_TRIGGERS):
                    cursor.execute(statement)
                cursor.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                cursor.execute(f"PRAGMA user_version = {LAYOUT}")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")
    _sync_directory(path)


def _sync_directory(path: str) -> None:
    """Make the file's name durable, not only its content."""
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _queue_id(connection: sqlite3.Connection, name: str) -> int:
    found = connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
    if found is None:  # looked up first, so that an existing queue can be opened while the file is locked
        connection.execute("INSERT OR IGNORE INTO queues (name) VALUES (?)", (name,))
        found = connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
    return int(found[0])


def _check_writable(connection: sqlite3.Connection) -> None:
    """Find out now rather than at the first enqueue; a file that is locked is fine."""
    try:
        connection.execute("BEGIN IMMEDIATE")  # on a read-only file this only begins to read
        connection.execute("UPDATE queues SET paused = paused")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            raise


def boot_id() -> int:
    """What tells this boot of the machine from every other: a lease of another boot is nobody's."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except FileNotFoundError:  # macOS
        asked = subprocess.run(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, check=True)
        text = asked.stdout.decode()
    return UUID(text.strip()).int >> 65  # 63 of its bits: they fit an INTEGER, and an index of it stays small


def _pragma(connection: sqlite3.Connection, setting: str) -> object:
    row = connection.execute(f"PRAGMA {setting}").fetchone()
    return row[0] if row else None
