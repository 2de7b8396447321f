"""Stage 2: what SQLite's error codes mean to whoever called: wait and try again, or call an operator."""

from __future__ import annotations

import sqlite3

from workqueue.errors import StoreError, StoreUnavailableError, StoreUnusableError

__all__ = ["is_busy", "may_be_full", "translated"]

_PRIMARY = 0xFF  # the low byte of an extended result code is the primary one

# primary result code -> (error, what to do about it)
_MEANINGS: dict[int, tuple[type[StoreError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailableError, "another process has it locked; the same call may succeed later"),
    sqlite3.SQLITE_LOCKED: (StoreUnavailableError, "another connection has it locked; the same call may succeed later"),
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "the disk is full, nothing was changed; free some space"),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "the disk cannot be read or written; check it and its free space"),
    sqlite3.SQLITE_NOMEM: (StoreUnavailableError, "this process is out of memory"),
    sqlite3.SQLITE_NOTADB: (StoreUnusableError, "this file is no SQLite database; name another, or restore a backup"),
    sqlite3.SQLITE_CORRUPT: (StoreUnusableError, "the database is damaged; recover it with `sqlite3 FILE .recover`"),
    sqlite3.SQLITE_READONLY: (StoreUnusableError, "the file or its directory is read-only for this user"),
    sqlite3.SQLITE_PERM: (StoreUnusableError, "this user may not write the file or its directory"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnusableError, "the file cannot be opened or made; see that this user may do so"),
}
_UNKNOWN = (
    StoreUnusableError,
    "SQLite refused what this release asks of it; if a hand changed the tables, undo that or restore a backup",
)


def is_busy(error: Exception) -> bool:
    """Whether the error only says that somebody else has the lock at the moment."""
    return _code(error) == sqlite3.SQLITE_BUSY


def may_be_full(error: Exception) -> bool:
    """Whether the disk may be full: a quota or a limit on the size of files shows as an error of input and output."""
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def translated(error: Exception, path: str) -> Exception:
    """The typed error for `error`; one that is not SQLite's is returned as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    kind, advice = _MEANINGS.get(_code(error), _UNKNOWN)
    typed = kind(f"{path}: {advice} (SQLite: {error})")
    typed.__cause__ = error
    return typed


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY
