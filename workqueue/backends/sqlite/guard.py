"""Stage 2: what must not be done to a queue file: write to a log that is gone, or use it across a fork.

SQLite notices neither, and answers as if all were well. A log that was deleted is written on, and everything in it is
gone at the next start. A process that was forked while the file was open inherits SQLite's belief that it holds the
file's locks, which the kernel gave to the parent alone; when the parent closes the file, the log is deleted under it.
"""

from __future__ import annotations

import os
import sqlite3
import weakref

from workqueue.backends.sqlite.file import QueueFile
from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = ["Connection", "Guard", "refuse_inherited"]

_Identity = tuple[int, int]


class Guard:
    """Compares the file, its log and its shared memory with what they were when the queue was opened.

    SQLite keeps the same log and shared memory for as long as anybody has the file open.

    Args:
        file: the file, which is open.
    """

    def __init__(self, file: QueueFile) -> None:
        self._path = file.path
        self._identities = {each: _identity(each) for each in (file.path, *file.sides())}

    def check(self) -> None:
        """Return if all of them are where they were.

        Raises:
            StoreUnusableError: one was moved, deleted or replaced: what is written now would be lost.
            StoreUnavailableError: one cannot be looked at now.
        """
        for each, identity in self._identities.items():
            if _identity(each) != identity:
                raise StoreUnusableError(
                    f"{each} was moved, deleted or replaced while the queue was open, so nothing more is written; stop"
                    f" this process before another opens {self._path}: closing the queue keeps what it had stored"
                )


def _identity(path: str) -> _Identity | None:
    """What tells the file at `path` from every other; None = there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailableError(
            f"{path} cannot be looked at ({error.strerror}); the same call may succeed later"
        ) from error
    return found.st_dev, found.st_ino


class Connection(sqlite3.Connection):
    """A connection to a queue file; `refuse_inherited` knows of it until it is closed."""

    def __init__(self, path: str, *args: object, **named: object) -> None:
        _OPEN.add(self, path)
        super().__init__(path, *args, **named)  # type: ignore[arg-type]

    def close(self) -> None:
        super().close()
        _OPEN.discard(self)


class _OpenFiles:
    """The files that this process has open, and those that its parent had open when it was forked."""

    def __init__(self) -> None:
        self._open: weakref.WeakKeyDictionary[Connection, _Identity | None] = weakref.WeakKeyDictionary()
        self._inherited: set[_Identity | None] = set()
        os.register_at_fork(after_in_child=self._forked)

    def add(self, connection: Connection, path: str) -> None:
        self._open[connection] = _identity(path)

    def discard(self, connection: Connection) -> None:
        self._open.pop(connection, None)

    def are_inherited(self, path: str) -> bool:
        return bool(self._inherited) and _identity(path) in self._inherited

    def _forked(self) -> None:
        self._inherited.update(self._open.values())
        self._inherited.discard(None)


_OPEN = _OpenFiles()  # one for the process, as SQLite's own table of locks is, whose truth it mirrors


def refuse_inherited(path: str) -> None:
    """Return if this process may open the file.

    Raises:
        StoreUnusableError: it was forked while its parent had the file open.
    """
    if _OPEN.are_inherited(path):
        raise StoreUnusableError(
            f"{path} was open in the process that this one was forked from, so its locks cannot be trusted here; open"
            " the queue only after the fork, or start processes with spawn or forkserver"
        )
