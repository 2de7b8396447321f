"""Stages 1-6: the one thread that writes a SQLite file, and group commit.

Whatever calls wait when the thread is free go into one transaction, run with one fsync, and are answered together by
one hand-over to the event loop. Nothing lingers for company: a call that comes alone is committed alone. When a batch
fails, each of its calls runs again by itself, so that one bad call cannot fail the others.

The thread waits for the file's lock by itself instead of leaving that to SQLite's busy handler, whose naps grow to
100 ms: it asks again every few milliseconds, takes new calls along, and answers those that have waited too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto

from workqueue.backends.sqlite.errors import is_busy, translated
from workqueue.backends.sqlite.schema import QueueFile
from workqueue.backends.sqlite.store import Ask, Change, Enqueue, Step, Store
from workqueue.errors import QueueClosedError, StoreUnavailableError, StoreUnusableError

__all__ = ["Call", "GroupCommit"]

log = logging.getLogger(__name__)

_KEYS_AT_ONCE = 1000  # so that a batch holds the file's lock for about 20 ms at most
_FIRST_NAP, _LONGEST_NAP = 0.0005, 0.01
_LIVELY_POLL, _QUIET_POLL, _LIVELY_FOR = 0.025, 0.045, 10.0  # seconds; half of it is how late a waiter is told


_NOTHING = Ask(lambda store: None)


class _Signal(Enum):
    CLOSE = auto()
    LOOK = auto()


@dataclass(slots=True, eq=False)
class Call:
    """One call that waits for its step to be committed.

    Args:
        step: what to run; its answers are left in it.
        answered: told, in the thread that it belongs to, when the step is committed.
        durable: whether the answer must survive a power cut.
    """

    step: Step
    answered: asyncio.Future[None] | Future[None]
    durable: bool
    since: float = field(default_factory=time.monotonic)
    claimed: bool = False
    error: Exception | None = None

    def keys(self) -> int:
        """How many keys the step touches, roughly."""
        return len(self.step.items) if isinstance(self.step, Enqueue) else 1

    def claim(self) -> bool:
        """Whether the caller still waits; from then on it cannot take the call back."""
        if not self.claimed:
            waits = not self.answered.cancelled()
            self.claimed = self.answered.set_running_or_notify_cancel() if isinstance(self.answered, Future) else waits
        return self.claimed

    def answer(self) -> None:
        """Tell the caller, unless it has gone."""
        if self.answered.cancelled():
            return
        if self.error is None:
            self.answered.set_result(None)
        else:
            self.answered.set_exception(self.error)


class GroupCommit:
    """Runs steps in transactions on a thread of its own.

    Args:
        file: the file.
        open_store: opens it; runs on the thread.
        on_change: called on the event loop after commits, ours and other processes', with what they may have changed.
    """

    def __init__(self, file: QueueFile, open_store: Callable[[], Store], on_change: Callable[[Change], None]) -> None:
        self._file = file
        self._open_store = open_store
        self._on_change = on_change
        self._calls: queue.SimpleQueue[Call | _Signal] = queue.SimpleQueue()
        self._closing = True  # until it is open
        self._thread: threading.Thread | None = None
        self._watchers = 0
        self._polling = False
        self._look_at = self._lively_until = 0.0
        self._synced: bool | None = None
        self._go_on = True
        self._version = 0

    # from the event loop

    async def open(self) -> None:
        """Start the thread and open the file.

        Raises:
            StoreUnusableError, StoreUnavailableError: as `open_queue_file`.
            QueueClosedError: it was open before.
        """
        if self._thread is not None:
            raise QueueClosedError()
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._thread = threading.Thread(target=self._run, args=(opened,), name="workqueue-sqlite", daemon=True)
        self._thread.start()
        try:
            await asyncio.shield(opened)
        except asyncio.CancelledError:
            self._stop()
            opened.add_done_callback(lambda done: done.exception())
            raise
        except Exception:  # the thread has ended: who calls now must be refused, or would wait for ever
            self._closing, self._thread = True, None
            raise

    def submit(self, step: Step, *, durable: bool = True) -> asyncio.Future[None]:
        """Have `step` run in the next transaction; the future is done when it is committed.

        Raises:
            QueueClosedError: `open` was not called yet, or `close` was.
        """
        if self._closing:
            raise QueueClosedError()
        answered: asyncio.Future[None] = self._loop.create_future()
        self._calls.put(Call(step, answered, durable))
        return answered

    async def close(self) -> None:
        """Answer every call that waits, then close the file."""
        if self._thread is None:
            return
        if not self._closing:
            self._stop()
        await asyncio.shield(self._ended)
        self._thread.join()  # it has nothing left to do

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Meanwhile, look out for commits of other processes."""
        self._watchers += 1
        if not self._polling:
            self._calls.put(_Signal.LOOK)
        try:
            yield
        finally:
            self._watchers -= 1

    def _stop(self) -> None:
        self._closing = True
        self._calls.put(_Signal.CLOSE)

    # from any other thread

    def run(self, step: Step, timeout: float) -> None:
        """Run `step` from a thread other than the event loop's, within `timeout` seconds. It is not made durable.

        Raises:
            StoreUnavailableError: it was not committed in time.
            StoreError: as SQLite says.
        """
        if self._closing:
            raise StoreUnavailableError("the queue is closed")
        answered: Future[None] = Future()
        self._calls.put(Call(step, answered, durable=False))
        try:
            answered.result(timeout)
        except TimeoutError:
            answered.cancel()
            raise StoreUnavailableError(f"{self._file.path}: no answer within {timeout:.1f} s") from None

    # on the writer's thread

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            self._store = self._open_store()
            self._connection = self._store.connection
            self._inode = os.stat(self._file.path).st_ino
            self._version = self._data_version()
        except Exception as error:  # noqa: BLE001 - whoever opens the queue is told
            self._hand_over([Call(_NOTHING, opened, durable=False, error=translated(error, self._file.path))])
            return
        self._hand_over([Call(_NOTHING, opened, durable=False)])
        try:
            while self._serve():
                self._look()
        except Exception:
            log.exception("the SQLite writer of %s ended; open the queue again", self._file.path)
        finally:
            self._closing = True
            self._connection.close()
            self._hand_over([*self._refused(), Call(_NOTHING, self._ended, durable=False)])

    def _serve(self) -> bool:
        """Commit what waits; returns whether to go on."""
        batch: list[Call] = []
        self._take(batch, self._until_look())
        if batch:
            self._commit(batch)
        return self._go_on

    def _take(self, batch: list[Call], timeout: float | None = 0) -> None:
        """Move calls that wait to `batch`; for the first one, wait up to `timeout` seconds, None = for ever."""
        keys = sum(call.keys() for call in batch)
        with contextlib.suppress(queue.Empty):
            while keys < _KEYS_AT_ONCE:
                item = self._calls.get(timeout != 0, timeout)
                timeout = 0
                if isinstance(item, Call):
                    batch.append(item)
                    keys += item.keys()
                elif item is _Signal.CLOSE:
                    self._go_on = False

    def _commit(self, batch: list[Call]) -> None:
        changed = Change.NOTHING
        try:
            self._begin(batch)
            batch[:] = [call for call in batch if call.claimed or call.claim()]
            if batch:
                self._store.perform([call.step for call in batch])
                changed = self._store.changed
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it is some caller's, who is told
            self._roll_back()
            if len(batch) > 1:
                for call in batch:
                    self._commit([call])
                return
            for call in batch:
                call.error = translated(error, self._file.path)
        self._hand_over(batch, changed)

    def _begin(self, batch: list[Call]) -> None:
        """Get the file's only write lock; calls that waited too long for it are answered and leave the batch."""
        nap = _FIRST_NAP
        while batch:
            self._check_file()
            self._synchronise(any(call.durable for call in batch))
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                self._give_up(batch, error)
            else:
                return
            time.sleep(nap)
            nap = min(nap * 1.5, _LONGEST_NAP)
            self._take(batch)

    def _give_up(self, batch: list[Call], error: sqlite3.Error) -> None:
        latest = time.monotonic() - self._file.patience.total_seconds()
        late = [call for call in batch if call.since <= latest]
        for call in late:
            call.error = translated(error, self._file.path)
            batch.remove(call)
        self._hand_over(late)

    def _synchronise(self, durable: bool) -> None:
        """Have the next COMMIT wait for the disk, or not. A start need not: losing it in a power cut loses nothing."""
        wanted = durable and self._file.fsync
        if wanted is not self._synced:
            # A script, because a PRAGMA that is executed again from the statement cache may do nothing.
            self._connection.executescript(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._synced = wanted

    def _check_file(self) -> None:
        """Refuse to write to a file that was deleted: SQLite would go on, and keys would vanish at the next start."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._file.path).st_ino == self._inode:
                return
        raise StoreUnusableError(
            f"{self._file.path} was moved, deleted or replaced while the queue was open; restart this process"
        )

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # a transaction that failed badly was rolled back by SQLite itself
                self._connection.execute("ROLLBACK")

    def _until_look(self) -> float | None:
        self._polling = False
        self._polling = (
            self._watchers > 0
        )  # a watcher that came before this is seen, one that comes after it sees False
        return max(self._look_at - time.monotonic(), 0.001) if self._polling else None

    def _look(self) -> None:
        """Ask, now and then, whether another process has committed something."""
        now = time.monotonic()
        if not self._watchers or now < self._look_at:
            return
        with contextlib.suppress(sqlite3.Error):  # a file that cannot be read now is asked again
            version = self._data_version()
            if version != self._version:
                self._version = version
                self._lively_until = now + _LIVELY_FOR
                self._hand_over([], Change.ELSEWHERE)
        self._look_at = now + (_LIVELY_POLL if now < self._lively_until else _QUIET_POLL)

    def _data_version(self) -> int:
        """A number that changes when another connection has committed; our own commits leave it alone."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _hand_over(self, calls: Sequence[Call], changed: Change = Change.NOTHING) -> None:
        """Answer `calls`, those of the event loop all in one go."""
        calls = [call for call in calls if call.claimed or call.claim()]
        for call in calls:
            if isinstance(call.answered, Future):
                call.answer()
        try:
            self._loop.call_soon_threadsafe(self._answer, calls, changed)
        except RuntimeError:  # the loop was closed without closing the queue; nobody waits any more
            log.debug("the event loop of the queue at %s is gone", self._file.path)

    def _answer(self, calls: Sequence[Call], changed: Change) -> None:
        for call in calls:
            if not isinstance(call.answered, Future):
                call.answer()
        if changed:
            self._on_change(changed)

    def _refused(self) -> list[Call]:
        """The calls that came too late."""
        late: list[Call] = []
        while not self._calls.empty():
            item = self._calls.get()
            if isinstance(item, Call):
                item.error = QueueClosedError()
                late.append(item)
        return late
