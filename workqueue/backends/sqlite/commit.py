"""One transaction for a batch of calls, and one answer for each, on the writer's thread.

When a batch fails, each of its calls runs again by itself, so that one bad call cannot fail the others.

The log is synced here and not by COMMIT, once no call waits any more. So a dispatcher's settles, the starts that they
make room for, and what the callbacks of those enqueue share a wait for the disk, though not a transaction. The starts
are answered before it.

The thread waits for the file's lock by itself instead of leaving that to SQLite's busy handler, whose naps grow to
100 ms: it asks again every few milliseconds, and answers those who have waited too long.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial

from workqueue.backends.sqlite.calls import Call, LoopCall, Outbox, ThreadCall
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
_TRANSACTIONS_A_SYNC = 4  # so that nobody waits for others without end
_A_MOMENT = 0.0002  # seconds, in which callbacks that begin ask for what they are to store; a sync takes a millisecond


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
        self._unsynced: list[Call] = []
        self._transactions = 0  # since the last sync
        self._has_started = False
        self._changed = Change.NOTHING  # since somebody was last answered
        # SQLite itself syncs the log before it writes it back, and the file thereafter.
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        """Close the connection."""
        try:
            self.sync()
            self._log.close(may_write=self._lost_log() is None)
        finally:
            with closed_without_writing_back(self._file) if self._log.is_cut_off else contextlib.nullcontext():
                self._connection.close()

    def commit(self, batch: Sequence[Call]) -> None:
        """Run `batch` in one transaction; if that fails, each call in a transaction of its own.

        What need not wait for the disk is answered, the others by `sync`.
        """
        for call in self._commit(self._admitted(batch)):
            self._commit([call], is_last=True)
        if self._log.is_due():
            self.sync()
            self._log.write_back()

    @property
    def owes_sync(self) -> bool:
        """Whether calls wait for `sync`."""
        return bool(self._unsynced)

    @property
    def until_sync(self) -> float:
        """For how many seconds more calls are waited for, to share it: none, unless starts were answered just now."""
        return _A_MOMENT if self._has_started else 0

    @property
    def is_sync_due(self) -> bool:
        """Whether those who wait for it have waited for enough others."""
        return self._transactions >= _TRANSACTIONS_A_SYNC

    def sync(self) -> None:
        """Answer what was committed since the last sync, once the disk has it."""
        calls, self._unsynced, self._transactions = self._unsynced, [], 0
        if calls:
            self._answer(calls, self._log.sync() or self._lost_log())

    def _admitted(self, batch: Sequence[Call]) -> Sequence[Call]:
        """`batch` without what a disk that is nearly full has no room for; that is answered."""
        doubt = self._log.doubt()
        if doubt is not None:
            self._answer(batch, doubt)
            return ()
        shortage = self._log.shortage()
        if shortage is None:
            return batch
        refused = [call for call in batch if _is_refused(call, shortage)]
        self._answer(refused, shortage.error())
        return [call for call in batch if call not in refused]

    def _commit(self, batch: Sequence[Call], *, is_last: bool = False) -> Sequence[Call]:
        """Run `batch`; returns the calls to be run by themselves, none if it is the last time."""
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
            self._committed(calls)
        return ()

    def _committed(self, calls: Sequence[Call]) -> None:
        """Answer those of `calls` that need not wait for the disk, and leave the others to `sync`."""
        self._changed |= self._store.changed
        unsynced = [call for call in calls if call.durable] if self._file.fsync else []
        if unsynced:
            # The latest first: callbacks whose enqueues are answered go on to be settled, and then the dispatcher that
            # the earlier settles wake asks for the starts of all of them at once.
            self._unsynced = [*unsynced, *self._unsynced]
            self._transactions += 1
        if len(unsynced) < len(calls):
            at_once = [call for call in calls if not call.durable] if unsynced else calls
            self._answer(at_once, self._lost_log())
        self._has_started = any(type(call) is LoopCall and not call.durable for call in calls)

    def _begin(self, batch: Sequence[Call]) -> Sequence[Call]:
        """Get the file's only write lock for those of `batch` who wait that long; the others are answered."""
        nap = _FIRST_NAP
        while calls := [call for call in batch if call.is_wanted()]:
            try:
                self._found = self._same_file.check()
                self._connection.execute("BEGIN IMMEDIATE")
            except Exception as error:  # noqa: BLE001 - the callers get it
                batch = self._patient(calls, error)
            else:
                return calls
            self.sync()  # what is committed does not wait for the lock that others hold
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

    def _answer(self, calls: Sequence[Call], error: Exception | None) -> None:
        typed = translated(error, self._file.path) if error is not None else None
        for call in calls:
            call.answer(typed)
        changed, self._changed = self._changed, Change.NOTHING
        self._outbox.send(partial(self._on_change, changed) if changed else None)


def _is_refused(call: Call, shortage: Shortage) -> bool:
    """New keys are; if it is acute, so is all but settling, and renewing, which comes from a thread."""
    if type(call.step) is Enqueue:
        return True
    return shortage.is_acute and type(call.step) is not Settle and type(call) is not ThreadCall
