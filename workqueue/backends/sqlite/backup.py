"""Stage 2: backups of a queue file, made while it is used, and putting one back.

Copying the file by hand goes wrong in two ways: what was committed last is in its log, and a log that stays behind
belongs to the file of before. SQLite's own backup sees one commit, log included. A restore moves the log aside with
its file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from workqueue.backends.sqlite.errors import translated
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.holders import is_in_use
from workqueue.backends.sqlite.looking import connect_to_look
from workqueue.backends.sqlite.opening import sync_directory
from workqueue.backends.sqlite.schema import ANYBODY
from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = ["back_up", "restore"]

_PLACES = ("queued", "in_progress", "dead")
_COUNT = f"SELECT count(*) FROM ({' UNION '.join(f'SELECT queue, key FROM {place}' for place in _PLACES)})"
_FORGET_LOG = f"UPDATE log_mark SET file_mtime_ns = NULL, writer = {ANYBODY}"


def back_up(file: QueueFile, target: str) -> int:
    """Copy `file`, with all its queues, to the new file `target`, as of one commit; returns how many keys it has.

    Others go on using the file meanwhile. `target` is there only once it is complete, checked and on disk.

    Raises:
        StoreUnusableError: there is no such file, it is damaged, or `target` exists or cannot be written.
        StoreUnavailableError: there is no space, or the file cannot be read now.
    """
    if not target:
        raise StoreUnusableError("the backup has no name; name a file")
    if os.path.lexists(target):
        raise StoreUnusableError(f"{target} exists; name a file that does not")
    with _copied(file, target, rights=(0o600, None)) as (copy, keys):
        _put(copy, target)
    return keys


def restore(source: str, file: QueueFile) -> tuple[int, str]:
    """Put a copy of the backup `source` in the place of `file`.

    Returns how many keys it has, and where the old file is.
    What was there, its log included, is moved to names that begin with the second answer; "" if there was nothing.

    Raises:
        StoreUnusableError: somebody has `file` open; or `source` is no queue's, is damaged, or cannot be read.
        StoreUnavailableError: there is no space, or one of them cannot be read now.
    """
    path = os.path.realpath(file.path)
    if not source or not os.path.exists(source):
        raise StoreUnusableError(f"there is no {source!r}; name a backup")
    if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise StoreUnusableError(f"{source} is the file itself; name the backup")
    _refuse_use(path, path)
    with _copied(replace(file, path=os.path.abspath(source)), path, rights=_rights(path, file.mode)) as (copy, keys):
        _refuse_use(path, path)  # copying may have taken a while
        aside = _moved_aside(path)
        _put(copy, path)
    return keys, aside


@contextmanager
def _copied(file: QueueFile, target: str, rights: tuple[int, os.stat_result | None]) -> Iterator[tuple[str, int]]:
    """A checked copy of `file` beside `target`, and how many keys it has; what is left of it is removed at the end."""
    copy = f"{target}.{os.getpid()}.part"
    with _typed(target):
        _make(copy, *rights)
    try:
        with closing(connect_to_look(file)) as source, _typed(file.path):
            keys = _copy(source, copy, file.path)
        yield copy, keys
    finally:
        with contextlib.suppress(OSError):
            os.unlink(copy)


def _copy(source: sqlite3.Connection, copy: str, path: str) -> int:
    with closing(sqlite3.connect(copy, isolation_level=None)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file; whoever opens it as a queue gives it a log again
        if target.execute("SELECT count(*) FROM sqlite_master WHERE name = 'log_mark'").fetchone()[0]:
            target.execute(_FORGET_LOG)
        (found,) = target.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise StoreUnusableError(
                f"{path}: the database is damaged; recover it with `sqlite3 FILE .recover` ({found})"
            )
        return int(target.execute(_COUNT).fetchone()[0])


def _make(copy: str, mode: int, owner: os.stat_result | None) -> None:
    made = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        if owner is not None:
            with contextlib.suppress(PermissionError):  # only root may give a file away
                os.fchown(made, owner.st_uid, owner.st_gid)
        os.fchmod(made, mode)
    finally:
        os.close(made)


def _rights(path: str, mode: int) -> tuple[int, os.stat_result | None]:
    """The rights and the owner of the file at `path`, else those of a new one."""
    try:
        found = os.stat(path)
    except OSError:
        return mode, None
    return found.st_mode & 0o777, found


def _refuse_use(path: str, name: str) -> None:
    if os.path.exists(path) and is_in_use(path):
        raise StoreUnusableError(
            f"{name} is open in a process, or may not be written by this user: stop every process that uses it first;"
            " nothing was changed"
        )


def _moved_aside(path: str) -> str:
    """Move what is at `path`, its log first; returns where to, "" if there was nothing."""
    aside = f"{path}.before-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    with _typed(path):
        moved = [side for side in ("-wal", "-shm", "") if _moved(path + side, aside + side)]
        try:
            _refuse_use(aside, path)  # somebody may have opened it just before it was moved
        except StoreUnusableError:
            for side in reversed(moved):
                os.rename(aside + side, path + side)
            raise
    return aside if moved else ""


def _moved(path: str, target: str) -> bool:
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return False
    return True


def _put(copy: str, path: str) -> None:
    """Give the copy its name, unless a file of that name was made meanwhile."""
    with _typed(path):
        try:
            os.link(copy, path)
        except FileExistsError:
            raise StoreUnusableError(f"{path} was made by another process meanwhile; stop it, and try again") from None
        except OSError:  # a file system without links
            os.rename(copy, path)
        sync_directory(path)


@contextmanager
def _typed(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, path) from error
    except OSError as error:
        kind = StoreUnusableError if isinstance(error, PermissionError | FileNotFoundError) else StoreUnavailableError
        raise kind(f"{path}: {error.strerror}") from error
