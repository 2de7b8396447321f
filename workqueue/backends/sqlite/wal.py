"""Stage 2: the write-ahead log: how large it grows, when it is written back, and space when there is none.

A log that is written back rarely is what makes a backlog of a million keys fast: each key is on a page of its own, and
a page is written back once, however often it changed. But a log that may be larger than the queue fills a small volume
with nothing, and then cannot be written back any more. So it may become as large as the file itself, within bounds.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from workqueue.backends.sqlite.errors import is_busy
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.replaced import Mark
from workqueue.backends.sqlite.same_file import Found, looked_at
from workqueue.errors import StoreError, StoreUnavailableError, StoreUnusableError

__all__ = ["Log", "Shortage"]

log = logging.getLogger(__name__)

_KIB, _MIB = 1024, 1024 * 1024
_LEAST_BYTES, _MOST_BYTES = 4_000 * _KIB, 64_000 * _KIB  # of pages, whatever the size of one
_WORTH_WRITING_BACK_BYTES = 400 * _KIB  # when the file is closed
# Of the log's format, https://sqlite.org/fileformat2.html#walformat: a header, then frames, each a header and a page.
# The salt is new whenever the log is written from its beginning again; frames with an older one are left-overs.
_HEADER_BYTES, _FRAME_HEADER_BYTES, _SALT_BYTES = 32, 24, 8
_SALT_AT, _SALT_OF_FRAME_AT = 16, 8
_HOLE = b"\0" * _SALT_BYTES
_KEPT_TO_SETTLE_BYTES, _KEPT_AT_LAST_BYTES = 1 * _MIB, _MIB // 4


@dataclass(frozen=True, slots=True)
class Shortage:
    """A volume that is nearly full: it has `free` bytes left, fewer than are to be `kept`.

    New keys are refused, since what is queued must still be settled, and the log written back. `is_acute`: there is
    hardly room for writing it back, so that nothing but settling may go on.
    """

    path: str
    free: int
    kept: int
    is_acute: bool

    def error(self) -> StoreUnavailableError:
        """What is refused is refused with."""
        return StoreUnavailableError(
            f"{self.path}: the disk is nearly full: {self.free / _MIB:.1f} MiB are left, and {self.kept / _MIB:.1f} MiB"
            " are kept for settling what is queued; nothing was stored: free some space"
        )


@dataclass(frozen=True, slots=True)
class _Seen:
    """The salt of the log, and where the last of its frames has its own, when a transaction last began."""

    salt: bytes = b""
    frame_at: int = 0


class Log:
    """The log of a file that is open. Everything runs on the writer's thread.

    Args:
        connection: the writer's.
        file: the file.
        mark: what says which file the log belongs to.

    Raises:
        StoreUnavailableError: the log cannot be opened now.
    """

    def __init__(self, connection: sqlite3.Connection, file: QueueFile, mark: Mark) -> None:
        self._connection = connection
        self._path = file.path
        self._mark = mark
        self._page_bytes = int(connection.execute("PRAGMA page_size").fetchone()[0])
        found = looked_at(file.path)
        self._file_bytes, self._log_bytes = _occupied(found) if found is not None else 0, 0
        self._descriptor = _opened(file.sides()[0])
        self._room_bytes = sys.maxsize
        self._limit = self._due_at = _LEAST_BYTES // self._page_bytes
        self._salt = b""
        self._seen = _Seen()
        self._doubt: StoreUnavailableError | None = None
        self.is_cut_off = False

    def close(self, *, may_write: bool) -> None:
        """Let go of the log; if this process `may_write`, leave so little in it that closing the file is quick."""
        if may_write:
            if self._reaches(_WORTH_WRITING_BACK_BYTES // self._page_bytes, self._read(_SALT_AT)):
                self.write_back()
            with suppress(sqlite3.Error), self._transaction():  # another may be writing, or the disk be full
                self._mark.leave()
        os.close(self._descriptor)

    def begin(self, found: Found) -> None:
        """At the beginning of a transaction: the files are as they were `found`.

        Raises:
            StoreUnusableError: the log was cut off.
        """
        self.refuse_cut_off(was_written=False)
        self._note_end()
        self._mark.follow(found.file)
        self._file_bytes, self._log_bytes = _occupied(found.file), found.log.st_size
        self._limit = self._limit_of(self._file_bytes)

    def refuse_cut_off(self, *, was_written: bool) -> None:
        """Return if the log has what it had when the last transaction began; `was_written`: and something since.

        SQLite writes on where it knows the end to be, so that a log which was cut off has a hole. Else it shrinks only
        when it begins anew, under another salt, and to nothing when all of it was written back.

        Raises:
            StoreUnusableError: it was emptied, cut off or written over.
        """
        seen = self._seen
        frame = self._read(seen.frame_at)  # before the salt: another process may let the log begin anew in between
        salt = self._read(_SALT_AT)
        lacks_header = salt == _HOLE and (was_written or seen.salt != b"")  # as a power cut may leave a new log
        if lacks_header or (salt == seen.salt != b"" and frame in (b"", _HOLE)):
            self.is_cut_off = True
            raise StoreUnusableError(
                f"the log of {self._path} was emptied, cut off or written over while the queue was open, so nothing"
                f" more is stored, and what was stored last may be lost; stop every process that has {self._path} open,"
                " then open it again, or restore a backup"
            )

    def _note_end(self) -> None:
        """Remember which frame is the last; under the file's lock, since the log is cut when it begins anew."""
        frames = (os.fstat(self._descriptor).st_size - _HEADER_BYTES) // self._frame_bytes
        at = _HEADER_BYTES + (frames - 1) * self._frame_bytes + _SALT_OF_FRAME_AT
        self._seen = _Seen(self._read(_SALT_AT), at) if frames > 0 else _Seen()

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._mark.forget()

    # the disk

    def sync(self) -> StoreUnavailableError | None:
        """Have the disk take all that was committed; returns the reason if it does not.

        Then nobody knows what of it the disk has, and the kernel does not try again.
        """
        try:
            _sync(self._descriptor)
        except OSError as error:
            self._doubt = StoreUnavailableError(
                f"{self._path}: the disk cannot be written ({error.strerror}), so a power cut may take along what was"
                " stored last; check it"
            )
        return self._doubt

    def doubt(self) -> StoreUnavailableError | None:
        """Before a transaction: why nothing can be stored since a sync failed; None once all is in the file itself."""
        if self._doubt is not None and self._has_written_all_back():
            self._doubt = None
        return self._doubt

    # writing back

    def is_due(self) -> bool:
        """After a transaction: whether the log has become as large as it may."""
        salt = self._read(_SALT_AT)
        if salt != self._salt:
            self._salt, self._due_at = salt, self._limit
        return self._reaches(self._due_at, salt)

    def write_back(self) -> None:
        """Copy the log into the file, as far as readers allow; it begins anew once nobody needs what is in it."""
        pages = 0
        try:
            self._empty_mark()
            _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            with self._transaction():
                self._mark.set()
            self._connection.execute(f"PRAGMA journal_size_limit = {self._most_bytes(self._limit)}")
        except (sqlite3.Error, StoreError) as error:
            if not is_busy(error):
                log.warning("the log of %s cannot be written back and grows meanwhile: %s", self._path, error)
        # While a reader still needs old pages the log cannot begin anew, and goes on growing; not at every commit.
        self._due_at = max(pages, self._due_at) + self._limit // 4

    def _empty_mark(self) -> None:
        with self._transaction():
            self._mark.empty()
        self._mark.is_empty = True

    def _reaches(self, pages: int, salt: bytes) -> bool:
        """Whether the log of that salt has that many pages."""
        frame = _HEADER_BYTES + (pages - 1) * self._frame_bytes
        return salt not in (b"", _HOLE) and self._read(frame + _SALT_OF_FRAME_AT) == salt

    def _read(self, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, _SALT_BYTES, offset)
        except OSError:  # then SQLite writes the log back by itself, though later
            return b""

    @property
    def _frame_bytes(self) -> int:
        return _FRAME_HEADER_BYTES + self._page_bytes

    def _limit_of(self, file_bytes: int) -> int:
        """How many pages the log of a file that large may have, on this volume."""
        return max(min(file_bytes, self._room_bytes // 2, _MOST_BYTES), _LEAST_BYTES) // self._page_bytes

    def _most_bytes(self, limit: int) -> int:
        """How large the log becomes: a transaction may take it somewhat beyond its limit."""
        return limit * self._frame_bytes * 5 // 4

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # space

    def shortage(self) -> Shortage | None:
        """What the volume has left, if that is too little to go on as usual."""
        free = self._free_bytes()
        self._room_bytes = free + self._log_bytes
        if free >= 3 * self._most_bytes(self._limit):
            return None
        is_acute = self._is_acute(free) and not self._has_written_all_back()
        kept, free = self._kept_bytes(), self._free_bytes()
        return Shortage(self._path, free, kept, is_acute) if free < kept else None

    def _free_bytes(self) -> int:
        try:
            volume = os.statvfs(self._path)
        except OSError:  # the guard looks at the file next, and says so
            return sys.maxsize
        return volume.f_bavail * volume.f_frsize

    def _is_acute(self, free: int) -> bool:
        unwritten = self._unwritten_bytes()
        return unwritten > 0 and free < unwritten + _KEPT_AT_LAST_BYTES

    def _unwritten_bytes(self) -> int:
        """By how much the file grows, or its holes are filled, when the log is written back."""
        return max(self._pages("page_count") * self._page_bytes - self._file_bytes, 0)

    def _has_written_all_back(self) -> bool:
        """Whether nobody needs the log any more, so that it begins anew; asking often makes it no larger."""
        try:
            if not self._mark.is_empty:
                self._empty_mark()
            busy, pages, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._file_bytes = _occupied(os.stat(self._path))
        except (sqlite3.Error, StoreError, OSError):  # whoever calls is answered that the disk is full, or failed
            return False
        return bool(not busy and pages == copied)  # while another process writes it back, both are -1

    def _kept_bytes(self) -> int:
        """What the volume must have left: for writing the log back, for its growth, and for settling."""
        unwritten = self._unwritten_bytes()
        most = self._most_bytes(self._limit_of(self._file_bytes + unwritten))
        unused = self._pages("freelist_count") * self._page_bytes
        return unwritten + max(most - self._log_bytes, 0) + max(_KEPT_TO_SETTLE_BYTES - unused, 0)

    def _pages(self, which: str) -> int:
        try:
            return int(self._connection.execute(f"PRAGMA {which}").fetchone()[0])
        except sqlite3.Error:  # the transaction fails likewise
            return 0

    def give_back(self) -> bool:
        """For a disk that is full: write the log back and cut it to nothing; whether that may have helped."""
        try:
            with suppress(sqlite3.Error):  # it may be too full even for this
                self._empty_mark()
            busy, pages, copied = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            with self._transaction():
                self._mark.set()
        except (sqlite3.Error, StoreError):  # whoever called gets the error that this was to mend
            return False
        return not busy or pages == copied


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreUnavailableError(f"{path} cannot be opened ({error.strerror}); try again") from error


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":  # where a plain fsync leaves the data in the drive's cache
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _occupied(found: os.stat_result) -> int:
    """How much of a file is on the disk: pages that a reader still needs as they were are left out as holes."""
    return min(found.st_size, found.st_blocks * 512)
