"""Stage 2: refusing to write to a queue file, or a log, that is not the one that was opened any more.

SQLite writes on to a log that was deleted, and answers as if all were well; everything in it is gone at the next start.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from workqueue.backends.sqlite.file import QueueFile
from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = ["Found", "SameFile", "looked_at"]

_Identity = tuple[int, int]


class Found(NamedTuple):
    """What there is to say of a file that is open, and of its log."""

    file: os.stat_result
    log: os.stat_result


class SameFile:
    """Compares the file, its log and its shared memory with what they were when the queue was opened.

    SQLite keeps the same log and shared memory for as long as anybody has the file open.

    Args:
        file: the file, which is open.
    """

    def __init__(self, file: QueueFile) -> None:
        self._path = file.path
        self._identities = [(each, _identity(looked_at(each))) for each in (file.path, *file.sides())]

    def check(self) -> Found:
        """How the file and its log are found, if all three are what they were.

        Raises:
            StoreUnusableError: one was moved, deleted or replaced: what is written now would be lost.
            StoreUnavailableError: one cannot be looked at now.
        """
        found = [self._same(path, identity) for path, identity in self._identities]
        return Found(found[0], found[1])

    def _same(self, path: str, identity: _Identity | None) -> os.stat_result:
        found = looked_at(path)
        if found is None or _identity(found) != identity:
            raise StoreUnusableError(
                f"{path} was moved, deleted or replaced while the queue was open, so nothing more is written; stop"
                f" this process before another opens {self._path}: closing the queue keeps what it had stored"
            )
        return found


def looked_at(path: str) -> os.stat_result | None:
    """What there is to say of the file at `path`; None = there is none.

    Raises:
        StoreUnavailableError: it cannot be looked at now.
    """
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailableError(
            f"{path} cannot be looked at ({error.strerror}); the same call may succeed later"
        ) from error


def _identity(found: os.stat_result | None) -> _Identity | None:
    """What a file differs in from every other."""
    return (found.st_dev, found.st_ino) if found is not None else None
