"""Stage 2: noticing that a file was replaced, by a backup say, while the log of the old one lies beside it.

SQLite would carry the old log over into the new file: what was restored is undone, or the file is damaged. Nothing in a
log says which file it belongs to. So a row, `log_mark`, says when the file itself was last written. It is stored with
the next commit, and so lies in the log. Only checkpoints write to the file: whoever makes one empties the mark before
and sets it afterwards, so that a crash in between leaves no wrong mark behind.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from random import SystemRandom
from typing import NamedTuple

from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.holders import Connection, is_in_use
from workqueue.backends.sqlite.same_file import looked_at
from workqueue.backends.sqlite.schema import ANYBODY
from workqueue.errors import StoreUnusableError

__all__ = ["Mark", "refuse_lone_log", "refuse_replaced"]

_LOG_HEADER_BYTES = 32
_NOBODY = -1
_BATCHES_UNSEEN = 64
_SECOND_NS = 10**9

_EMPTY = "UPDATE log_mark SET file_mtime_ns = NULL, writer = ?"
# An empty mark is filled by whoever emptied it: a checkpoint of another process may be under way.
_SET = f"UPDATE log_mark SET file_mtime_ns = ?, boot = ? WHERE file_mtime_ns IS NOT NULL OR writer IN (?, {ANYBODY})"
_READ = "SELECT CAST(file_mtime_ns AS INTEGER), CAST(boot AS INTEGER), CAST(writer AS INTEGER) FROM log_mark"


class Mark:
    """Keeps the mark true while the file is open. Everything runs on the writer's thread, within its transactions.

    Args:
        connection: the writer's.
        path: the file.
        boot: the id of this boot: a power cut may take the last change of a file's time along.
        writer: whose empty mark this process fills, as `refuse_replaced` says.
    """

    def __init__(self, connection: sqlite3.Connection, path: str, boot: int, writer: int) -> None:
        self._connection = connection
        self._path = path
        self._boot = boot
        self._writer = writer
        self._known_ns = 0
        self._batches = 0
        self.is_empty = False

    def follow(self, found: os.stat_result) -> None:
        """Set the mark, if the file was written to since this process last did: it was `found` just before."""
        # Now and then in any case: a process that only enqueued has emptied it when it closed the file.
        self._batches += 1
        if found.st_mtime_ns != self._known_ns or self._batches % _BATCHES_UNSEEN == 0:
            self.set()

    def set(self) -> None:
        """Set the mark; after a checkpoint, and by `follow`."""
        # Looked at under the lock: a checkpoint that others made meanwhile has set its mark by now, or emptied it.
        found = looked_at(self._path)
        self.is_empty = False
        self._known_ns = found.st_mtime_ns if found is not None else 0
        self._connection.execute(_SET, (self._known_ns, self._boot, self._writer))

    def empty(self) -> None:
        """Empty the mark, before a checkpoint."""
        self._writer = SystemRandom().getrandbits(62)
        self._connection.execute(_EMPTY, (self._writer,))

    def leave(self) -> None:
        """Empty the mark, before the file is closed: SQLite makes a checkpoint if nobody else has it open."""
        # Anybody may fill it: who has the file open, or opens it meanwhile, keeps that checkpoint from being made.
        self._connection.execute(_EMPTY, (ANYBODY,))

    def forget(self) -> None:
        """The transaction was rolled back, and what was done to the mark with it."""
        self._known_ns = 0


class _Read(NamedTuple):
    """The mark as it is found; `mtime_ns` None: empty."""

    mtime_ns: int | None
    boot: int
    writer: int

    def is_of(self, mtime_ns: int) -> bool:
        """Whether this is the mark of a file of that time; archives keep no more than its seconds."""
        return self.mtime_ns is not None and mtime_ns in (self.mtime_ns, self.mtime_ns // _SECOND_NS * _SECOND_NS)


def refuse_replaced(file: QueueFile, boot: int) -> int:
    """Return if the log beside `file`, if there is one, is its own: whose empty mark is to be filled.

    Nothing is written: a connection that may only read leaves the log alone when it is closed.

    Raises:
        StoreUnusableError: the file was replaced since the log was begun.
    """
    found = looked_at(file.path)
    if found is None or not found.st_size:
        return _NOBODY
    mark = _read(file)
    if mark is None or mark.is_of(found.st_mtime_ns) or is_in_use(file.path):
        return _NOBODY  # who has it open follows what happens to it
    if mark.mtime_ns is not None and _has_log(file) and (mark.boot == boot or found.st_mtime_ns > mark.mtime_ns):
        raise StoreUnusableError(_replaced(file, found.st_mtime_ns, mark.mtime_ns))
    return mark.writer


def refuse_lone_log(file: QueueFile) -> None:
    """Return unless there is a log without its file: SQLite would delete it, and with it what was stored last.

    Raises:
        StoreUnusableError: the file was moved, deleted or emptied.
    """
    if not _has_log(file):  # looked at before the file: one that is being made has its first page before its log
        return
    found = looked_at(file.path)
    if found is None or not found.st_size:
        log, memory = file.sides()
        raise StoreUnusableError(
            f"{file.path} is {'missing' if found is None else 'empty'}, but what was stored last is still in its log,"
            f" {log}: put the file back beside it, or restore a backup; to give up what is in it, delete {log} and"
            f" {memory}"
        )


def _read(file: QueueFile) -> _Read | None:
    """The mark, as the file and the log have it together; None = it has none that can be read, as a file of another."""
    patience = file.patience.total_seconds()
    try:
        with closing(Connection(file.path, "mode=ro", timeout=patience)) as connection:
            found = connection.execute(_READ).fetchone()
    except sqlite3.DatabaseError:
        return None
    return _Read(*found) if found is not None else None


def _has_log(file: QueueFile) -> bool:
    log = looked_at(file.sides()[0])
    return log is not None and log.st_size > _LOG_HEADER_BYTES


def _replaced(file: QueueFile, found_ns: int, mark_ns: int) -> str:
    found, mark = _time(found_ns), _time(mark_ns)
    log, memory = file.sides()
    return (
        f"{file.path} was replaced or restored at {found}, and the log beside it is that of the file of {mark}:"
        f" together they would damage the queue. If the file is right, delete {log} and {memory}; next time use"
        f" `workqueue restore`. If only its time was changed, give it back: touch -d '{mark}' {file.path}"
    )


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // _SECOND_NS, UTC):%Y-%m-%d %H:%M:%S}.{ns % _SECOND_NS:09}Z"
