"""Stage 2: who has a queue file open: this process, the one that it was forked from, or another.

SQLite's locks on a file belong to the process. A process loses them when it closes any descriptor of the file. A child
does not inherit them, but it inherits SQLite's belief to have them: when the parent then closes the file, the log is
deleted under the child, which writes on to it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable
from urllib.parse import quote

from workqueue.backends.sqlite.same_file import FileId, file_id
from workqueue.errors import StoreUnusableError

__all__ = ["Connection", "is_in_use", "refuse_inherited"]

_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510  # the bytes of which every open connection has locked one (sqlite/os.h)


class Connection(sqlite3.Connection):
    """A connection to a queue file. A process that is forked before it is closed must not open the file.

    Args:
        path: the file. It must be there: left to itself, SQLite makes one, and deletes the log of one that was moved.
        how: what it may do: `mode=rw`, `mode=ro`, or `immutable=1` for a file that nobody writes to.
        timeout: how long a statement waits for a lock, in seconds.
    """

    def __init__(self, path: str, how: str, *, timeout: float = 0.0) -> None:
        name = f"file://{quote(os.fsencode(path))}?{how}"
        with _OPEN.lock:
            super().__init__(name, timeout=timeout, isolation_level=None, cached_statements=256, uri=True)
            self.file_id = _OPEN.connections[self] = file_id(path)

    def close(self) -> None:
        super().close()
        _OPEN.connections.pop(self, None)


class _OpenFiles:
    """The queue files that this process has open, and those that were open when it was forked."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connections: weakref.WeakKeyDictionary[Connection, FileId | None] = weakref.WeakKeyDictionary()
        self.inherited: set[FileId | None] = set()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.lock = threading.Lock()  # who holds it may be a thread that the child has not
        self.inherited.update(self.connections.values())
        self.inherited.discard(None)


_OPEN = _OpenFiles()  # one for the process, as SQLite's own table of locks is, whose truth it mirrors


def refuse_inherited(path: str) -> None:
    """Return if this process may open the file.

    Raises:
        StoreUnusableError: it was forked while its parent had the file open.
    """
    if _OPEN.inherited and file_id(path) in _OPEN.inherited:
        raise StoreUnusableError(
            f"{path} was open in the process that this one was forked from, so its locks cannot be trusted here; open"
            " the queue only after the fork, or start processes with spawn or forkserver"
        )


def is_in_use(path: str) -> bool:
    """Whether anybody, this process or another, has the file open; if that is not known, somebody has."""
    with _OPEN.lock:
        return _is_open_here(path) or _is_open_elsewhere(path)


def _is_open_here(path: str) -> bool:
    """Whether any descriptor of this process is the file, be it ours or somebody else's."""
    descriptors: Iterable[int]
    try:
        descriptors = [int(name) for name in os.listdir("/dev/fd")]
    except OSError:  # without /proc there is no such list
        descriptors = range(os.sysconf("SC_OPEN_MAX"))
    return file_id(path) in map(file_id, descriptors)


def _is_open_elsewhere(path: str) -> bool:
    """Ask for a lock that conflicts with every connection's. Only where this process has none: closing drops them."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
    except OSError:
        return True
    finally:
        os.close(descriptor)  # gives the lock back
    return False
