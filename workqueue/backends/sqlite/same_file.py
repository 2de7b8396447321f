"""Stage 2: refusing to use a queue file, or a log, that is not the one that was opened any more.

SQLite writes on to a log that was deleted, and answers as if all were well; everything in it is gone at the next start.
It reads on from a file that was moved, which nobody finds under its name.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from workqueue.backends.sqlite.file import QueueFile
from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = ["FileId", "Found", "SameFile", "file_id", "looked_at"]

FileId = tuple[int, int]
"""What a file differs in from every other: its device and its inode."""


class Found(NamedTuple):
    """What there is to say of a file that is open, and of its log."""

    file: os.stat_result
    log: os.stat_result


class SameFile:
    """Compares the file, its log and its shared memory with what they were when the queue was opened.

    SQLite keeps the same log and shared memory for as long as anybody has the file open.

    Args:
        file: the file, which is open.
        opened: what it was when it was opened; None = it was gone by then.
    """

    def __init__(self, file: QueueFile, opened: FileId | None) -> None:
        self._file = file
        self._path = file.path
        self._id = opened
        self._log, memory = file.sides()
        self._sides = [(side, _id_of(looked_at(side))) for side in (self._log, memory)]

    def check(self) -> Found:
        """How the file and its log are found, if all three are what they were.

        Raises:
            StoreUnusableError: one was moved, deleted or replaced: what is written now would be lost.
            StoreUnavailableError: one cannot be looked at now.
        """
        found = self.check_file()
        log, _ = [self._same_side(path, known) for path, known in self._sides]
        return Found(found, log)

    def check_file(self) -> os.stat_result:
        """How the file itself is found, whatever became of the others. Raises as `check` does."""
        found = looked_at(self._path)
        if found is None or _id_of(found) != self._id:
            raise self._gone("moved, deleted or replaced")
        if not found.st_size:
            raise self._gone("emptied")
        return found

    def _gone(self, how: str) -> StoreUnusableError:
        if self._file.read_only:
            return StoreUnusableError(f"{self._path} was {how} while it was looked at; open the queue again")
        return StoreUnusableError(
            f"{self._path} was {how} while the queue was open, so nothing more is stored; what was stored last is in"
            f" {self._log}, which fits no other file: put the file back in its place before anything opens it there, or"
            " stop this process and restore a backup"
        )

    def _same_side(self, path: str, known: FileId | None) -> os.stat_result:
        found = looked_at(path)
        if found is None or _id_of(found) != known:
            raise StoreUnusableError(
                f"{path} was moved, deleted or replaced while the queue was open, so nothing more is stored; stop every"
                f" process that has {self._path} open before another opens it: the last one to close it writes what was"
                " stored into it"
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


def file_id(file: str | int) -> FileId | None:
    """What the file of this path or descriptor differs in from every other; None if that cannot be told."""
    try:
        return _id_of(os.stat(file))
    except OSError:
        return None


def _id_of(found: os.stat_result | None) -> FileId | None:
    return (found.st_dev, found.st_ino) if found is not None else None
