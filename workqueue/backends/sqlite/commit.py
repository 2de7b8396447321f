"""One transaction for a batch of calls, and one answer for each, on the writer's thread.

When a batch fails, each of its calls runs again by itself, so that one bad call cannot fail the others.

The thread waits for the file's lock by itself instead of leaving that to SQLite's busy handler, whose naps grow to
100 ms: it asks again every few milliseconds, and answers those who have waited too long.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial

from workqueue.backends.sqlite.calls import Call, Outbox, ThreadCall
from workqueue.backends.sqlite.errors import is_busy, may_be_full, translated
from workqueue.backends.sqlite.file import QueueFile
from workqueue.backends.sqlite.looking import closed_without_writing_back
from workqueue.backends.sqlite.opening import Opened
from workqueue.backends.sqlite.store import Change, Enqueue, Settle, Store
from workqueue.backends.sqlite.wal import Log, Shortage
from workqueue.errors import StoreUnavailableError, StoreUnusableError

__all__ = ["Commits", "OpenFile"]

OpenFile = Callable[[], tuple[Store, Opened]]
"""Opens the file, on the writer's thread."""

_FIRST_NAP, _LONGEST_NAP = 0.0005, 0.01  # seconds


class Commits:
    """Commits batches of calls and answers them.

    Args:
        file: the file.
        store: runs the steps.
        opened: the file, open.
        outbox: takes the answers to the event loop.
        on_change: called on the event loop after a commit, with what it may have changed.
    """

    def __init__(
        self, file: QueueFile, store: Store, opened: Opened, outbox: Outbox, on_change: Callable[[Change], None]
    ) -> None:
        self._file = file
        self._store = store
        self._connection = store.connection
        self._outbox = outbox
        self._on_change = on_change
        self._same_file = opened.same_file
        self._log = Log(self._connection, file, opened.mark)
        self._synced: bool | None = None

    def close(self) -> None:
        """Close the connection."""
        try:
            self._log.close(may_write=self._lost_log() is None)
        finally:
            with closed_without_writing_back(self._file) if self._log.is_cut_off else contextlib.nullcontext():
                self._connection.close()

    def commit(self, batch: Sequence[Call]) -> None:
        """Run `batch` in one transaction and answer it; if that fails, each call in a transaction of its own."""
        for call in self._commit(self._admitted(batch)):
            self._commit([call], is_last=True)
        if self._log.is_due():
            self._synchronise(durable=False)  # SQLite syncs the log before it writes it back, and the file thereafter
            self._log.write_back()

    def _admitted(self, batch: Sequence[Call]) -> Sequence[Call]:
        """`batch` without what a disk that is nearly full has no room for; that is answered."""
        shortage = self._log.shortage()
        if shortage is None:
            return batch
        refused = [call for call in batch if _is_refused(call, shortage)]
        self._answer(refused, shortage.error())
        return [call for call in batch if call not in refused]

    def _commit(self, batch: Sequence[Call], *, is_last: bool = False) -> Sequence[Call]:
        """Run `batch` and answer it; returns the calls to be run by themselves, none if it is the last time."""
        calls = self._begin(batch)
        if not calls:
            return ()
        try:
            self._log.begin(self._found)
            self._store.perform([call.step for call in calls])
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it is some caller's, who gets it
            self._roll_back()
            has_room = may_be_full(error) and self._log.give_back()
            if not is_last and (has_room or len(calls) > 1):
                return calls
            self._answer(calls, self._lost_log() or error)
        else:
            self._answer(calls, self._lost_log(), self._store.changed)
        return ()

    def _begin(self, batch: Sequence[Call]) -> Sequence[Call]:
        """Get the file's only write lock for those of `batch` who wait that long; the others are answered."""
        nap = _FIRST_NAP
        while calls := [call for call in batch if call.is_wanted()]:
            try:
                self._found = self._same_file.check()
                self._synchronise(durable=any(call.durable for call in calls))
                self._connection.execute("BEGIN IMMEDIATE")
            except Exception as error:  # noqa: BLE001 - the callers get it
                batch = self._patient(calls, error)
            else:
                return calls
            time.sleep(nap)
            nap = min(nap * 1.5, _LONGEST_NAP)
        return ()

    def _patient(self, calls: Sequence[Call], error: Exception) -> Sequence[Call]:
        """Those of `calls` that are worth trying again in a moment; the others are answered with `error`."""
        latest = time.monotonic() - self._file.patience.total_seconds()
        if not is_busy(error):
            self._answer(calls, error)
            return ()
        self._answer([call for call in calls if call.since <= latest], error)
        return [call for call in calls if call.since > latest]

    def _synchronise(self, *, durable: bool) -> None:
        """Have the next COMMIT wait for the disk, or not. A start need not: losing it in a power cut loses nothing."""
        wanted = durable and self._file.fsync
        if wanted is not self._synced:
            # A script, because a PRAGMA that is executed again from the statement cache may do nothing.
            self._connection.executescript(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._synced = wanted

    def _lost_log(self) -> StoreUnusableError | None:
        """The error for a commit that went into a log which was deleted or cut off meanwhile."""
        try:
            self._same_file.check()
            self._log.refuse_cut_off(was_written=True)
        except StoreUnavailableError:  # what cannot be looked at now need not be gone; the next commit looks again
            return None
        except StoreUnusableError as error:
            return error
        return None

    def _roll_back(self) -> None:
        self._log.forget()
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # a transaction that failed badly was rolled back by SQLite itself
                self._connection.execute("ROLLBACK")

    def _answer(self, calls: Sequence[Call], error: Exception | None, changed: Change = Change.NOTHING) -> None:
        typed = translated(error, self._file.path) if error is not None else None
        for call in calls:
            call.answer(typed)
        self._outbox.send(partial(self._on_change, changed) if changed else None)


def _is_refused(call: Call, shortage: Shortage) -> bool:
    """New keys are; if it is acute, so is all but settling, and renewing, which comes from a thread."""
    if type(call.step) is Enqueue:
        return True
    return shortage.is_acute and type(call.step) is not Settle and type(call) is not ThreadCall
